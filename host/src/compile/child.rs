//! The compile child: bounds itself before it reads a byte of what it was given, compiles that, answers, and is gone.

use std::io;

use anyhow::{Context, Result, ensure};
use rustix::process::{Pid, Resource, Rlimit, Signal};

use super::frame::{self, Verdict};
use crate::artifact::ARTIFACT_BYTES;
use crate::guest::CodeMaker;
use crate::lanes::priority;

/// Cranelift recurses deeply into deeply nested code.
const STACK_BYTES: usize = 16 << 20;

/// What the process may have mapped before it is bounded.
const MAPPED_KIB: u64 = 32 << 10;

/// The bounds that the host gives its child. Nobody else has a use for this command.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Who asks: the child dies with it
    #[arg(long)]
    parent: i32,
    /// Memory that it may have, in bytes
    #[arg(long)]
    memory_bytes: u64,
    /// CPU time that it may take
    #[arg(long)]
    cpu_seconds: u64,
    /// The niceness that it must have
    #[arg(long, allow_negative_numbers = true)]
    niceness: i32,
}

/// Reads a request from stdin, and writes the answer to stdout.
///
/// # Errors
/// If it cannot be bounded as was asked, or its parent does not speak its language. What is wrong with the artifact is an answer.
pub fn run(args: &Args) -> Result<()> {
    bound(args)?;
    let compile = std::thread::Builder::new().name("compile".to_owned()).stack_size(STACK_BYTES).spawn(answer)?;
    match compile.join() {
        Ok(answered) => answered,
        // The panic has said on stderr what it was, and the host passes that on.
        Err(_) => std::process::abort(),
    }
}

fn answer() -> Result<()> {
    let request = frame::read_request(&mut io::stdin().lock(), ARTIFACT_BYTES).context("reading the request")?;
    let (verdict, body) = match CodeMaker::new() {
        Err(error) => (Verdict::Unfit, format!("{error:#}").into_bytes()),
        Ok(maker) if maker.settings() != request.settings => {
            (Verdict::Unfit, b"the compiler's settings are not the host's; was the binary replaced?".to_vec())
        }
        Ok(maker) => match maker.compile(request.kind, &request.bytes) {
            Ok(code) => (Verdict::Code, code),
            Err(why) => (Verdict::Invalid, why.into_bytes()),
        },
    };
    drop(request.bytes);
    frame::write_answer(&mut io::stdout().lock(), verdict, &body).context("answering")
}

/// Everything that keeps this process small, while it has seen nothing of the artifact.
fn bound(args: &Args) -> Result<()> {
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL)).context("binding to the host's life")?;
    // Whoever died before that line sends no signal any more.
    ensure!(
        rustix::process::getppid() == Pid::from_raw(args.parent),
        "the host is gone: `compile-child` is for windlass itself"
    );
    close_inherited();
    priority::of_this_thread().and_then(|niceness| {
        ensure!(niceness == args.niceness, "niceness {niceness} where {} was set", args.niceness);
        Ok(())
    })?;
    // The kernel's choice, should the container's memory run out all the same. Not everybody may say so.
    let _ = std::fs::write("/proc/self/oom_score_adj", "1000");
    limit(Resource::Core, 0, 0)?;
    // No file may grow by its hand; pipes are no files.
    limit(Resource::Fsize, 0, 0)?;
    // First a signal that tells what happened, then one that cannot be missed.
    limit(Resource::Cpu, args.cpu_seconds, args.cpu_seconds.saturating_add(5))?;
    // All private writable memory, used or not: never less than what the container is charged with.
    limit(Resource::Data, args.memory_bytes, args.memory_bytes)?;
    // What was mapped before could be filled in spite of the limit.
    let status = std::fs::read_to_string("/proc/self/status").context("reading what was mapped so far")?;
    let mapped = status.lines().find_map(|line| line.strip_prefix("VmData:")?.trim().strip_suffix("kB"));
    let mapped_kib: u64 = mapped.context("no VmData in /proc/self/status")?.trim().parse()?;
    ensure!(mapped_kib <= MAPPED_KIB, "{mapped_kib} KiB were mapped before there was a limit");
    Ok(())
}

fn limit(resource: Resource, current: u64, maximum: u64) -> Result<()> {
    rustix::process::setrlimit(resource, Rlimit { current: Some(current), maximum: Some(maximum) })
        .with_context(|| format!("limiting {resource:?}"))
}

/// Closes what the host itself had inherited from whoever started it; its own descriptors do not survive an exec.
fn close_inherited() {
    let Ok(entries) = std::fs::read_dir("/proc/self/fd") else { return };
    let numbers = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<i32>().ok());
    // Gathered first: the folder that is being read is one of them, and is closed by then.
    for number in numbers.collect::<Vec<_>>().into_iter().filter(|number| *number > 2) {
        // SAFETY: this is the process's first act, on its only thread, and nothing in it has opened a descriptor that is still in
        // use: no object owns any of these. One that is closed already is refused by the kernel.
        unsafe { rustix::io::close(number) };
    }
}
