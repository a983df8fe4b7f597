//! The host's side of a compile: starts a child, watches over it, and turns whatever becomes of it into code or one line.

use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use rustix::process::{Pid, Signal};

use super::cache::Cache;
use super::entry::Key;
use super::frame::{self, Verdict};
use super::room::{Claim, Room};
use super::watch::{self, Answer, Heard};
use super::{Compiled, Refused};
use crate::artifact::{Artifact, Kind};
use crate::lanes::governor::{Adopted, Governor};
use crate::lanes::priority::{Niceness, Role};
use crate::text::shown;

/// The most code that is taken for one artifact. Python's interpreter, the largest that was measured, gives 32 MiB from 17.5.
pub(super) const CODE_BYTES: u64 = 512 << 20;

/// Memory that a small artifact takes to compile, the compiler itself included: the example plugins need a claim of 90 to 110 MiB, most
/// of it mapped and never touched.
const BASE_BYTES: u64 = 112 << 20;

/// Memory that each byte of an artifact takes to compile, as a claim, of which three quarters are the child's: Python's interpreter, 17.5 MiB
/// (componentize-py 0.25.1), mapped 405 MiB and touched 303, and with this gets 477. At 24 it failed at 399 after 16 s and began anew.
const BYTES_PER_BYTE: u64 = 30;

/// A second try is worth its time where there is more memory by one part in so many.
const WORTH_IT: u64 = 10;

/// What one compile may take besides memory.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// CPU time, in seconds.
    pub cpu_seconds: u64,
    /// Wall-clock time, the time included in which the governor holds it back.
    pub time: Duration,
}

impl Default for Limits {
    fn default() -> Limits {
        // The slowest that was seen, a JavaScript engine, took 21 s. At a twentieth of a CPU two minutes take forty.
        Limits { cpu_seconds: 120, time: Duration::from_secs(3_600) }
    }
}

/// How a host compiles, as far as that is a choice.
#[derive(Debug, Clone)]
pub struct Means {
    /// The binary to run: this process's own, which stays the same when its file is replaced. Benchmarks bring the host's.
    pub program: PathBuf,
    /// What one compile may take.
    pub limits: Limits,
    /// The memory that one compile may have, if that is less than there is.
    pub memory_bytes: Option<u64>,
}

impl Default for Means {
    fn default() -> Means {
        Means { program: PathBuf::from("/proc/self/exe"), limits: Limits::default(), memory_bytes: None }
    }
}

/// What a [`Compiler`] works with.
pub struct Options {
    /// How it compiles.
    pub means: Means,
    /// The settings of the engine that will load the code.
    pub settings: [u8; 32],
    /// How many children there may be at once.
    pub at_once: usize,
    /// Where code is kept.
    pub cache: Option<Cache>,
    /// Where their memory comes from.
    pub room: Room,
    /// Who paces them.
    pub governor: Arc<Governor>,
    /// How nice threads are.
    pub niceness: Niceness,
}

/// Compiles artifacts, each in a child of its own, on the threads that ask; a bounded number at once.
pub struct Compiler {
    pub(super) options: Options,
    /// Children that may still be started.
    free: Mutex<usize>,
    freed: Condvar,
}

/// The right to have children. Given back when it is dropped.
struct Turn<'a> {
    compiler: &'a Compiler,
    taken: usize,
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        *self.compiler.free.lock().unwrap_or_else(PoisonError::into_inner) += self.taken;
        self.compiler.freed.notify_all();
    }
}

/// A child that is gone, whatever happens, when this is.
struct Kept {
    child: Child,
    adopted: Option<Adopted>,
}

impl Kept {
    /// Makes sure that it ends, and takes in how it did. One that has ended already is not changed by that.
    fn end(&mut self) -> std::io::Result<ExitStatus> {
        let killed = self.child.kill();
        // Its clock is read until it is reaped.
        self.adopted = None;
        let status = self.child.wait();
        killed.and(status)
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        // Nothing is left to be done about an error, and one that was reaped before is none.
        let _ = self.end();
    }
}

impl Compiler {
    /// A compiler that has started nothing yet.
    pub fn new(options: Options) -> Compiler {
        let free = Mutex::new(options.at_once.max(1));
        Compiler { options, free, freed: Condvar::new() }
    }

    /// The code of an artifact: from the cache, or compiled and kept there.
    ///
    /// # Errors
    /// Whatever the artifact does to its compiler.
    pub fn code(&self, artifact: &Artifact, kind: Kind) -> Result<Compiled, Refused> {
        let Some(cache) = &self.options.cache else { return self.compile(artifact, kind) };
        let key = self.key(artifact, kind);
        if let Some(code) = cache.get(&key) {
            return Ok(Compiled { kind, code, is_from_cache: true });
        }
        let compiled = self.compile(artifact, kind)?;
        cache.put(&key, &compiled.code);
        Ok(compiled)
    }

    /// Compiles an artifact whose code from the cache could not be loaded after all, and keeps the new code instead.
    ///
    /// # Errors
    /// Whatever the artifact does to its compiler.
    pub fn code_anew(&self, artifact: &Artifact, kind: Kind) -> Result<Compiled, Refused> {
        if let Some(cache) = &self.options.cache {
            cache.remove(&self.key(artifact, kind));
        }
        self.code(artifact, kind)
    }

    fn key(&self, artifact: &Artifact, kind: Kind) -> Key {
        Key { settings: self.options.settings, digest: artifact.digest, kind }
    }

    /// Compiles one artifact; waits for its turn first. Takes as long as the artifact does, up to the limits. An artifact that
    /// needs more memory than is usual for its size is tried a second time, alone, with all that there is, if that is more.
    ///
    /// # Errors
    /// Whatever the artifact does to its compiler.
    fn compile(&self, artifact: &Artifact, kind: Kind) -> Result<Compiled, Refused> {
        let usual = BASE_BYTES.saturating_add(BYTES_PER_BYTE.saturating_mul(artifact.bytes.len() as u64));
        let (first, had_bytes) = {
            let _turn = self.turn(1);
            let claim = self.options.room.claim(Some(usual));
            (self.try_with(artifact, kind, &claim), claim.child_bytes())
        };
        if !matches!(first, Err(Refused::Memory { .. })) {
            return first;
        }
        let _turn = self.turn(self.options.at_once.max(1));
        let claim = self.options.room.claim(None);
        let bytes = claim.child_bytes();
        if bytes <= had_bytes.saturating_add(had_bytes / WORTH_IT) {
            return Err(Refused::Memory { limit_mib: had_bytes >> 20, remedy: claim.remedy });
        }
        tracing::debug!(digest = %artifact.digest, had_bytes, bytes, "compiled a second time, with more memory");
        self.try_with(artifact, kind, &claim)
    }

    fn turn(&self, wanted: usize) -> Turn<'_> {
        let mut free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        while *free < wanted {
            free = self.freed.wait(free).unwrap_or_else(PoisonError::into_inner);
        }
        *free -= wanted;
        Turn { compiler: self, taken: wanted }
    }

    fn try_with(&self, artifact: &Artifact, kind: Kind, claim: &Claim<'_>) -> Result<Compiled, Refused> {
        let bytes = claim.child_bytes();
        let out_of_memory = Refused::Memory { limit_mib: bytes >> 20, remedy: claim.remedy };
        let mut kept = self.start(bytes)?;
        let head = frame::request_head(&self.options.settings, kind, artifact.bytes.len());
        let most = CODE_BYTES.min(bytes);
        let heard = watch::converse(&mut kept.child, &[&head, &artifact.bytes], self.options.means.limits.time, most);
        let status = kept.end().map_err(|error| Refused::Host(format!("the compiler's end was not seen: {error}")))?;
        self.judge(heard, status, kind, out_of_memory)
    }

    fn start(&self, memory_bytes: u64) -> Result<Kept, Refused> {
        let child = self.command(memory_bytes).spawn().map_err(|error| {
            Refused::Host(format!("no process for the compiler ({error}): is there a limit of processes or memory?"))
        })?;
        let adopted =
            i32::try_from(child.id()).ok().and_then(Pid::from_raw).map(|pid| self.options.governor.adopt(pid));
        Ok(Kept { child, adopted })
    }

    fn command(&self, memory_bytes: u64) -> Command {
        let mut command = Command::new(&self.options.means.program);
        let niceness = self.options.niceness.of(Role::Guest);
        command
            .arg0("windlass")
            .arg("compile-child")
            .args(["--parent", &std::process::id().to_string()])
            .args(["--memory-bytes", &memory_bytes.to_string()])
            .args(["--cpu-seconds", &self.options.means.limits.cpu_seconds.to_string()])
            .args(["--niceness", &niceness.to_string()])
            .env_clear()
            // The allocator would take a gigabyte of address space before the child can bound itself, and what is taken is not
            // bounded any more. The child makes sure that it did not.
            .env("MIMALLOC_ARENA_RESERVE", "0")
            .env("MIMALLOC_DISALLOW_ARENA_ALLOC", "1")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }

    fn judge(&self, heard: Heard, status: ExitStatus, kind: Kind, out_of_memory: Refused) -> Result<Compiled, Refused> {
        let limits = &self.options.means.limits;
        let garbled = || Refused::Host("the compiler's answer cannot be read; was the binary replaced?".to_owned());
        match heard.answer {
            Answer::Whole(head, body) => match head.verdict {
                Verdict::Code => Ok(Compiled { kind, code: body, is_from_cache: false }),
                Verdict::Invalid => Err(Refused::Invalid(shown(&String::from_utf8_lossy(&body), 512))),
                Verdict::Unfit => Err(Refused::Host(shown(&String::from_utf8_lossy(&body), 512))),
            },
            Answer::TimedOut => Err(Refused::Time(limits.time.as_secs())),
            Answer::TooLarge(length) if length > CODE_BYTES => Err(Refused::Size(CODE_BYTES >> 20)),
            Answer::TooLarge(_) => Err(out_of_memory),
            Answer::Garbled => Err(garbled()),
            Answer::Failed(error) => Err(Refused::Host(format!("talking to the compiler failed: {error}"))),
            Answer::None => Err(died(&heard.stderr, status, limits, out_of_memory)),
        }
    }
}

/// Why a child ended without an answer.
fn died(stderr: &str, status: ExitStatus, limits: &Limits, out_of_memory: Refused) -> Refused {
    let said = shown(stderr.lines().find(|line| !line.trim().is_empty()).unwrap_or("it said nothing"), 256);
    // How an allocation that fails ends a Rust program, and what the system's calls say.
    let lacked_memory = ["memory allocation of", "os error 12"].iter().any(|sign| stderr.contains(sign));
    match status.signal() {
        Some(signal) if signal == Signal::XCPU.as_raw() => Refused::Cpu(limits.cpu_seconds),
        _ if lacked_memory => out_of_memory,
        // Not by us, who had heard its end: by the kernel, which does that for memory.
        Some(signal) if signal == Signal::KILL.as_raw() => out_of_memory,
        Some(signal) => Refused::Crashed(format!("signal {signal}: {said}")),
        None => Refused::Host(said),
    }
}
