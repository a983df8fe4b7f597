//! Making native code without an engine that could run it: what the compile child does with its one artifact.

use std::hash::{Hash as _, Hasher};

use anyhow::{Context, Result};
use sha2::{Digest as _, Sha256};

use super::engine::{self, Engine};
use super::prepare::one_line;
use crate::artifact::Kind;

/// A compiler with the settings of the host's engine, without its pool, on the thread that calls.
pub struct CodeMaker(wasmtime::Engine);

impl CodeMaker {
    /// Sets it up.
    ///
    /// # Errors
    /// If the engine does not run on this machine.
    pub fn new() -> Result<CodeMaker> {
        let mut config = engine::code_settings(engine::Metering::Fuel);
        config.parallel_compilation(false);
        let engine = wasmtime::Engine::new(&config).map_err(anyhow::Error::from).context("setting up the compiler")?;
        Ok(CodeMaker(engine))
    }

    /// See [`Engine::settings`].
    pub fn settings(&self) -> [u8; 32] {
        settings(&self.0)
    }

    /// Compiles an artifact to code that an engine with the same settings can load.
    ///
    /// # Errors
    /// One line that says what is wrong with the artifact.
    pub fn compile(&self, kind: Kind, bytes: &[u8]) -> Result<Vec<u8>, String> {
        let code = match kind {
            Kind::Preview1 => self.0.precompile_module(bytes),
            Kind::Job | Kind::Command => self.0.precompile_component(bytes),
        };
        code.map_err(|error| one_line(&error))
    }
}

impl Engine {
    /// A digest of all settings, of the engine's version and of the processor's features: code can be loaded by any engine with
    /// the same, and by no other.
    pub fn settings(&self) -> [u8; 32] {
        settings(&self.0)
    }
}

fn settings(engine: &wasmtime::Engine) -> [u8; 32] {
    let mut digest = Digesting(Sha256::new());
    engine.precompile_compatibility_hash().hash(&mut digest);
    // What this host's release does with code is a setting as well.
    digest.write(env!("CARGO_PKG_VERSION").as_bytes());
    digest.0.finalize().into()
}

/// Collects what is hashed in a digest that is the same in every process.
struct Digesting(Sha256);

impl Hasher for Digesting {
    fn write(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    fn finish(&self) -> u64 {
        // The digest is taken whole; nobody asks for this.
        0
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may stop here")]
    use super::*;
    use crate::guest::{EngineOptions, Metering};

    #[test]
    fn the_childs_settings_are_the_hosts_whatever_the_pool() {
        let child = CodeMaker::new().unwrap().settings();
        for runs in [8, 100] {
            let host =
                |metering| Engine::new(EngineOptions { max_concurrent_runs: runs, metering }).unwrap().settings();
            assert_eq!(host(Metering::Fuel), child);
            assert_ne!(host(Metering::Nothing), child);
        }
    }
}
