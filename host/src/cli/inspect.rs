//! `windlass inspect`: what a wasm file is and says of itself, without running it.

use std::path::PathBuf;

use anyhow::anyhow;

use super::Failure;
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
    println!("file      {}", args.file.display());
    println!("kind      {}", anatomy.kind.describe());
    println!("digest    {}", artifact.digest);
    println!("size      {:.1} KiB", artifact.bytes.len() as f64 / 1024.0);
    match &anatomy.manifest {
        None => println!("manifest  no manifest: its entry in the configuration says everything, or the defaults do"),
        Some(manifest) => {
            println!("manifest  windlass:job {}", manifest.abi);
            println!("  name    {}", manifest.name.as_deref().unwrap_or("-"));
            println!("  version {}", manifest.version.as_deref().unwrap_or("-"));
            for line in describe_layer(&manifest.plugin).lines() {
                println!("  {line}");
            }
            match manifest.wants.as_slice() {
                [] => println!("  wants   nothing"),
                wants => wants.iter().for_each(|want| println!("  wants   {want} (not granted by asking)")),
            }
        }
    }
    print_names("imports", &anatomy.imports);
    print_names("exports", &anatomy.exports);
    Ok(())
}

fn print_names(what: &str, names: &[String]) {
    if names.is_empty() {
        println!("{what}   none");
    }
    for (index, name) in names.iter().enumerate() {
        let label = if index == 0 { what } else { "" };
        println!("{label:<9} {}", crate::text::shown(name, 200));
    }
}
