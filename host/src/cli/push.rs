//! `windlass push`: a wasm file to a registry, in the layout that the host and other wasm tools read.

use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use anyhow::{Context as _, anyhow};

use super::{Failure, print};
use crate::core::time::Timestamp;
use crate::lanes::priority::Niceness;
use crate::registry::{Reference, Registry, Wanted};

/// What to push, and where to.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The wasm file
    file: PathBuf,
    /// Where to: oci://HOST/REPO:TAG
    reference: String,
}

/// Pushes, and prints the reference by digest: what to write into a configuration that should never change by itself.
pub fn run(args: Args) -> Result<(), Failure> {
    let usage = |why: String| Failure::Usage(anyhow!(why));
    let reference = Reference::parse(&args.reference).map_err(usage)?;
    if let Wanted::Digest(_) = reference.wanted() {
        return Err(usage(format!("{reference}: push to a tag; the digest comes of the content")));
    }
    let (artifact, anatomy) = crate::source::load(&args.file).map_err(usage)?;
    let created = written(&args.file).map_err(Failure::Usage)?;
    let registry =
        Niceness::among_others().and_then(|niceness| Registry::new(None, niceness)).map_err(Failure::Failed)?;
    let digest =
        registry.push(&reference, artifact, &anatomy, &created).map_err(|fault| Failure::Failed(anyhow!(fault)))?;
    print(format_args!("{}\n", reference.at(digest)));
    Ok(())
}

/// When the file was last written, in RFC 3339: pushing the same file again gives the same digest.
fn written(file: &std::path::Path) -> anyhow::Result<String> {
    let doing = || format!("{}: reading when it was written", file.display());
    let modified = std::fs::metadata(file).and_then(|about| about.modified()).with_context(doing)?;
    let since = modified.duration_since(SystemTime::UNIX_EPOCH).unwrap_or(Duration::ZERO);
    let seconds = i64::try_from(since.as_secs()).with_context(doing)?;
    let at = Timestamp::from_second(seconds).with_context(doing)?;
    Ok(at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string())
}
