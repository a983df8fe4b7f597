//! `windlass inspect`: what a wasm file, or an artifact in a registry, is and says of itself, without running it.

use std::path::Path;

use anyhow::anyhow;

use super::{Failure, print, pull};
use crate::artifact::{Anatomy, Artifact};
use crate::core::config::describe_layer;
use crate::registry::SCHEME;
use crate::verify::Keys;

/// What to look at.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The wasm file, or a reference: oci://HOST/REPO:TAG
    #[arg(value_name = "FILE or REF")]
    what: String,
}

/// Prints kind, manifest, what it asks for, digest and sizes.
pub fn run(args: Args) -> Result<(), Failure> {
    let (artifact, anatomy) = look_up(&args.what)?;
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

/// Gets what is named, and says where it is from.
fn look_up(what: &str) -> Result<(Artifact, Anatomy), Failure> {
    if !what.starts_with(SCHEME) {
        let found = crate::source::load(Path::new(what)).map_err(|why| Failure::Usage(anyhow!(why)))?;
        print(format_args!("file      {what}\n"));
        return Ok(found);
    }
    let reference = pull::reference(what)?;
    let fetched = pull::fetch(&reference, &Keys::default())?;
    let anatomy = fetched.artifact.anatomy().map_err(|why| Failure::Failed(anyhow!("{reference}: {why}")))?;
    print(format_args!("reference {}\n", reference.at(fetched.manifest)));
    Ok((fetched.artifact, anatomy))
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
