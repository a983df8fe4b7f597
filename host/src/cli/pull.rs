//! `windlass pull`: a wasm file from a registry, checked by digest and, where keys are given, by signature.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, anyhow};

use super::{Failure, print};
use crate::lanes::priority::Niceness;
use crate::registry::{Fault, Fetched, Reference, Registry};
use crate::verify::Keys;

/// What to pull, and where to put it.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Where from: oci://HOST/REPO:TAG or oci://HOST/REPO@sha256:…
    reference: String,
    /// The file to write; the last part of the repository's name with .wasm behind if it is left out
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// A public key of cosign: without a good signature by it, nothing is written; may be given more than once
    #[arg(long, value_name = "FILE")]
    verify_key: Vec<String>,
}

/// Pulls, writes the file whole or not at all, and prints its name and the reference by digest.
pub fn run(args: Args) -> Result<(), Failure> {
    let reference = reference(&args.reference)?;
    let keys = Keys::read(&args.verify_key, Path::new("")).map_err(|why| Failure::Usage(anyhow!(why)))?;
    let fetched = fetch(&reference, &keys)?;
    let last = reference.repository().rsplit('/').next().unwrap_or_default();
    let output = args.output.unwrap_or_else(|| PathBuf::from(format!("{last}.wasm")));
    write(&output, &fetched.artifact.bytes).map_err(Failure::Failed)?;
    print(format_args!("{}  {}\n", output.display(), reference.at(fetched.manifest)));
    Ok(())
}

/// Reads a reference that a person gave.
pub(super) fn reference(text: &str) -> Result<Reference, Failure> {
    Reference::parse(text).map_err(|why| Failure::Usage(anyhow!(why)))
}

/// Fetches by the network alone.
pub(super) fn fetch(reference: &Reference, keys: &Keys) -> Result<Fetched, Failure> {
    let registry =
        Niceness::among_others().and_then(|niceness| Registry::new(None, niceness)).map_err(Failure::Failed)?;
    registry.load(reference, keys).map_err(|fault: Fault| Failure::Failed(anyhow!(fault)))
}

fn write(path: &Path, bytes: &[u8]) -> anyhow::Result<()> {
    let doing = || format!("writing {}", path.display());
    let mut new = path.as_os_str().to_owned();
    new.push(format!(".new-{}", std::process::id()));
    let written = std::fs::write(&new, bytes).and_then(|()| std::fs::rename(&new, path));
    if written.is_err() {
        let _ = std::fs::remove_file(&new);
    }
    written.with_context(doing)
}
