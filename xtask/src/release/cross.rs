//! The host for another architecture than this machine's: clang with the target's musl headers for the little C that there is, and
//! Rust's own linker. The Dockerfile does the same for the machine that it is built on.

use std::path::{Path, PathBuf};

use super::elf;
use crate::steps::{self, Steps, command, root, target_folder};
use crate::{Result, build, prepare};

/// The smallest program: `(module (func (export "_start")))`.
const GUEST: [u8; 36] =
    *b"\0asm\x01\0\0\0\x01\x04\x01\x60\0\0\x03\x02\x01\0\x07\x0a\x01\x06_start\0\0\x0a\x04\x01\x02\0\x0b";

/// Builds for a target, and returns the binary.
pub(super) fn build(steps: &mut Steps, target: &str) -> Result<PathBuf> {
    let machine = machine(target);
    let headers = format!("/usr/include/{machine}-linux-musl");
    let debian = if machine == "aarch64" { "arm64" } else { "amd64" };
    for (is_there, what) in [
        (steps::is_there("clang"), "clang"),
        (steps::is_there("llvm-ar"), "llvm-ar"),
        (Path::new(&headers).is_dir(), headers.as_str()),
    ] {
        if !is_there {
            return Err(format!(
                "{what} is missing (Debian: dpkg --add-architecture {debian} && apt-get update && apt-get install clang llvm musl-dev:{debian})"
            ));
        }
    }
    prepare::add_target(target)?;
    steps.step(&format!("building the host for {target}"), "about 10 minutes the first time", || {
        let name = target.replace('-', "_");
        let mut cargo = command("cargo", &["build", "--locked", "--release", "--target", target, "-p", "windlass"]);
        cargo
            .env(format!("CC_{name}"), "clang")
            .env(format!("AR_{name}"), "llvm-ar")
            .env(format!("CFLAGS_{name}"), format!("-nostdlibinc -isystem {headers}"))
            .env(format!("CARGO_TARGET_{}_LINKER", name.to_uppercase()), "rust-lld");
        steps::run(cargo)
    })?;
    Ok(build::binaries(target).join("windlass"))
}

/// The first word of a target.
pub(super) fn machine(target: &str) -> &str {
    target.split('-').next().unwrap_or(target)
}

/// Looks into a binary, and runs it where this machine can: itself, or by QEMU. Returns what was found.
pub(super) fn inspect(binary: &Path, target: &str, version: &str) -> Result<String> {
    let failed = |what: String| format!("{}: {what}", binary.display());
    let bytes = std::fs::read(binary).map_err(|error| failed(error.to_string()))?;
    let found = elf::inspect(&bytes).map_err(failed)?;
    let wanted = machine(target);
    if found.machine != wanted || !found.is_static {
        return Err(failed(format!("{found:?} is not a static binary for {wanted}")));
    }
    let emulator = format!("qemu-{wanted}-static");
    let is_own = std::env::consts::ARCH == wanted;
    if !is_own && !steps::is_there(&emulator) {
        return Ok(format!("{wanted}, static; not run, for want of {emulator} (Debian: qemu-user-static)"));
    }
    let run = |arguments: &[&str]| {
        let binary = binary.display().to_string();
        let mut run = if is_own { command(&binary, &[]) } else { command(&emulator, &[&binary]) };
        run.args(arguments);
        steps::output(run)
    };
    let said = run(&["--version"])?;
    if said.trim() != format!("windlass {version}") {
        return Err(failed(format!("it says `{}`, not `windlass {version}`", said.trim())));
    }
    // A configuration read, and a guest compiled and run: for another machine that is other code than what the tests have run.
    let folder = target_folder().join("tried");
    let write = |name: &str, bytes: &[u8]| {
        let file = folder.join(name);
        std::fs::create_dir_all(&folder)
            .and_then(|()| std::fs::write(&file, bytes))
            .map_err(|error| format!("{}: {error}", file.display()))?;
        Ok::<_, String>(file.display().to_string())
    };
    let guest = write("guest.wasm", &GUEST)?;
    let config =
        write("windlass.yaml", b"pluginsDir: .\nplugins: { guest: { source: \"file:guest.wasm\", once: true } }\n")?;
    run(&["check", "--config", &config])?;
    run(&["once", &guest])?;
    let how = if is_own { "run here".to_owned() } else { format!("run by {emulator}") };
    Ok(format!("{wanted}, static, {} MiB, {how}", bytes.len().div_ceil(1 << 20)))
}

/// Where cargo's manifest of the host is.
pub(super) fn manifest() -> PathBuf {
    root().join("host/Cargo.toml")
}
