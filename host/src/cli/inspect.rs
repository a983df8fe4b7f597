//! `windlass inspect`: what a wasm file is and says of itself, without running it.

use std::path::PathBuf;

use anyhow::anyhow;

use super::{Failure, print};
use crate::core::config::describe_layer;

/// What to look at.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The wasm file
    file: PathBuf,
}

/// Prints kind, manifest, what it asks for, digest and sizes.
pub fn run(args: Args) -> Result<(), Failure> {
    let (artifact, anatomy) = crate::source::load(&args.file).map_err(|why| Failure::Usage(anyhow!(why)))?;
    print(format_args!("file      {}\n", args.file.display()));
    print(format_args!("kind      {}\n", anatomy.kind.describe()));
    print(format_args!("digest    {}\n", artifact.digest));
    print(format_args!("size      {:.1} KiB\n", artifact.bytes.len() as f64 / 1024.0));
    match &anatomy.manifest {
        None => print(format_args!(
            "manifest  no manifest: its entry in the configuration says everything, or the defaults do\n"
        )),
        Some(manifest) => {
            print(format_args!("manifest  windlass:job {}\n", manifest.abi));
            print(format_args!("  name    {}\n", manifest.name.as_deref().unwrap_or("-")));
            print(format_args!("  version {}\n", manifest.version.as_deref().unwrap_or("-")));
            for line in describe_layer(&manifest.plugin).lines() {
                print(format_args!("  {line}\n"));
            }
            match manifest.wants.as_slice() {
                [] => print(format_args!("  wants   nothing\n")),
                wants => {
                    wants.iter().for_each(|want| print(format_args!("  wants   {want} (not granted by asking)\n")))
                }
            }
        }
    }
    print_names("imports", &anatomy.imports);
    print_names("exports", &anatomy.exports);
    Ok(())
}

fn print_names(what: &str, names: &[String]) {
    if names.is_empty() {
        print(format_args!("{what}   none\n"));
    }
    for (index, name) in names.iter().enumerate() {
        let label = if index == 0 { what } else { "" };
        print(format_args!("{label:<9} {}\n", crate::text::shown(name, 200)));
    }
}
