//! `windlass compile`: compiles ahead of time, into the cache that a host on the same `dataDir` reads.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use anyhow::{Context, anyhow};

use super::{Failure, print};
use crate::compile::{CACHE_BYTES, Cache, Compiler, Means, Options, Room};
use crate::guest::CodeMaker;
use crate::lanes::cgroup;
use crate::lanes::governor::Governor;
use crate::lanes::priority::{Niceness, Role};

/// What to compile, and for whom.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The wasm files
    #[arg(required = true)]
    files: Vec<PathBuf>,
    /// The host's `dataDir`. The host may run meanwhile
    #[arg(long, value_name = "DIR")]
    data_dir: PathBuf,
}

/// Compiles each file as the host would, and says what it is and took. Fails if one of them cannot be compiled or kept.
pub fn run(args: Args) -> Result<(), Failure> {
    let problem = Arc::new(Mutex::new(None));
    let told = problem.clone();
    let report = move |problem| *told.lock().unwrap_or_else(PoisonError::into_inner) = problem;
    let cache =
        Cache::open(&args.data_dir, CACHE_BYTES, Box::new(report)).map_err(|why| Failure::Usage(anyhow!(why)))?;
    let niceness = Niceness::among_others().map_err(Failure::Failed)?;
    // Children inherit this, as those of the host's loaders do.
    niceness.take(Role::Guest).map_err(Failure::Failed)?;
    let compiler = Compiler::new(Options {
        means: Means::default(),
        settings: CodeMaker::new().map_err(Failure::Failed)?.settings(),
        at_once: 1,
        cache: Some(cache),
        room: Room::new(cgroup::Roots::default(), None, None),
        governor: Governor::new(),
        niceness,
    });
    for file in &args.files {
        let (artifact, anatomy) = crate::source::load(file).map_err(|why| Failure::Usage(anyhow!(why)))?;
        let began = Instant::now();
        let done = compiler.code(&artifact, anatomy.kind).with_context(|| format!("{}", file.display()));
        let compiled = done.map_err(Failure::Failed)?;
        if let Some(problem) = problem.lock().unwrap_or_else(PoisonError::into_inner).take() {
            return Err(Failure::Failed(anyhow!(problem)));
        }
        let how = if compiled.is_from_cache() { "was there already" } else { "compiled" };
        let kib = compiled.code().len() as f64 / 1024.0;
        let seconds = began.elapsed().as_secs_f64();
        print(format_args!("{}  {}  {kib:.1} KiB of code, {how}, {seconds:.2} s\n", file.display(), artifact.digest));
    }
    Ok(())
}
