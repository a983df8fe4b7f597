//! Artifacts: the bytes of one wasm file, what they are and what they say of themselves. Nothing here is run or compiled.

use std::fs::File;
use std::io::Read;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use rustix::fs::OFlags;
use sha2::{Digest as _, Sha256};
use wasmparser::{Encoding, ExternalKind, Parser, Payload};

use crate::core::config::PluginLayer;
use crate::core::name::Digest;

mod manifest;
pub use manifest::{Manifest, SECTION};

/// The largest artifact that is taken.
pub const ARTIFACT_BYTES: u64 = 256 << 20;

/// How deep modules and components may lie in one another.
const NESTING: usize = 16;

/// What a file holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A component that exports our job interface.
    Job,
    /// A component that exports `wasi:cli/run`.
    Command,
    /// A core module with `_start`, for WASI preview 1.
    Preview1,
}

impl Kind {
    /// How a person calls it.
    pub fn describe(self) -> &'static str {
        match self {
            Kind::Job => "component, windlass job",
            Kind::Command => "component, WASI 0.2 command",
            Kind::Preview1 => "core module, WASI preview 1 command",
        }
    }
}

/// The bytes of one wasm file. Not trusted, and not looked at yet.
pub struct Artifact {
    /// SHA-256 of the bytes.
    pub digest: Digest,
    /// The bytes.
    pub bytes: Vec<u8>,
}

/// SHA-256 of some bytes.
pub fn digest_of(bytes: &[u8]) -> Digest {
    Digest(Sha256::digest(bytes).into())
}

/// What an artifact is, as far as its outer form tells.
#[derive(Debug, Clone)]
pub struct Anatomy {
    /// What there is to call.
    pub kind: Kind,
    /// What its author says of it.
    pub manifest: Option<Manifest>,
    /// The names of what it imports, sorted.
    pub imports: Vec<String>,
    /// The names of what it exports, sorted.
    pub exports: Vec<String>,
}

impl Artifact {
    /// Reads a file, if it is a plain one and not too large.
    ///
    /// # Errors
    /// One line with cause and remedy, without the file's name.
    pub fn read(path: &Path) -> Result<Artifact, String> {
        // Looked at before it is opened: opening a pipe would wait for its other end.
        let about = std::fs::metadata(path).map_err(|error| format!("cannot be read: {error}"))?;
        if about.is_dir() {
            return Err("is a folder; a plugin is one .wasm file".to_owned());
        }
        if !about.is_file() {
            return Err("is not a plain file (a pipe, socket or device); a plugin is one .wasm file".to_owned());
        }
        if about.len() > ARTIFACT_BYTES {
            return Err(format!("has {} MiB; the most is {} MiB", about.len() >> 20, ARTIFACT_BYTES >> 20));
        }
        let mut bytes = Vec::with_capacity(usize::try_from(about.len()).unwrap_or(0));
        // Without waiting: it may have become a pipe since.
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file = rustix::fs::open(path, flags, rustix::fs::Mode::empty())
            .map_err(|error| format!("cannot be opened: {}", std::io::Error::from(error)))?;
        let mut file = File::from(file);
        let state = |file: &File| {
            let about = file.metadata().map_err(|error| format!("cannot be read: {error}"))?;
            Ok::<_, String>((about.is_file(), about.len(), about.mtime(), about.mtime_nsec()))
        };
        let before = state(&file)?;
        // The file may grow while it is read.
        let limited = (&mut file).take(ARTIFACT_BYTES + 1).read_to_end(&mut bytes);
        limited.map_err(|error| format!("cannot be read: {error}"))?;
        if bytes.len() as u64 > ARTIFACT_BYTES {
            return Err(format!("grew beyond {} MiB while it was read", ARTIFACT_BYTES >> 20));
        }
        if state(&file)? != before || before.1 != bytes.len() as u64 {
            return Err("changed while it was read; it is read again when it has settled".to_owned());
        }
        Ok(Artifact::from_bytes(bytes))
    }

    /// Takes bytes as they are.
    pub fn from_bytes(bytes: Vec<u8>) -> Artifact {
        Artifact { digest: digest_of(&bytes), bytes }
    }

    /// Finds out what it is, without running or compiling anything.
    ///
    /// # Errors
    /// One line with cause and remedy: not wasm, truncated, nothing to call, a manifest that cannot be read or is too new.
    pub fn anatomy(&self) -> Result<Anatomy, String> {
        match self.bytes.get(..8) {
            Some([0, b'a', b's', b'm', ..]) => {}
            Some([b'(', ..] | [b';', b';', ..]) => {
                return Err("is WebAssembly text; translate it with `wasm-tools parse` first".to_owned());
            }
            None if self.bytes.is_empty() => return Err("is empty; was it copied to the end?".to_owned()),
            _ => return Err("is not WebAssembly (it does not begin with \\0asm)".to_owned()),
        }
        let mut found = Found::default();
        walk(&self.bytes, 0, &mut found)
            .map_err(|error| format!("is truncated or damaged WebAssembly ({error}): build or copy it again"))?;
        let manifest = found.manifest.as_deref().map(Manifest::parse).transpose()?;
        let kind = found.kind()?;
        found.imports.sort();
        found.imports.dedup();
        found.exports.sort();
        Ok(Anatomy { kind, manifest, imports: found.imports, exports: found.exports })
    }
}

#[derive(Default)]
struct Found {
    is_component: bool,
    imports: Vec<String>,
    exports: Vec<String>,
    manifest: Option<Vec<u8>>,
}

impl Found {
    /// Our job, a command, `_start`, in that order.
    fn kind(&self) -> Result<Kind, String> {
        let exports = |interface: &str| {
            self.exports.iter().any(|name| name.split('@').next().is_some_and(|name| name == interface))
        };
        match self.is_component {
            true if exports("windlass:job/job") => Ok(Kind::Job),
            true if exports("wasi:cli/run") => Ok(Kind::Command),
            true => Err(format!(
                "is a component with nothing to call: it exports neither windlass:job/job nor wasi:cli/run, but {}",
                listed(&self.exports)
            )),
            false if self.exports.iter().any(|name| name == "_start") => Ok(Kind::Preview1),
            false => Err(format!(
                "is a core module without _start (a reactor or library?); it exports {}: build it as a command, or make it a \
                 component that exports windlass:job/job",
                listed(&self.exports)
            )),
        }
    }
}

fn listed(names: &[String]) -> String {
    match names {
        [] => "nothing".to_owned(),
        names => {
            let some: Vec<_> = names.iter().take(5).map(|name| crate::text::shown(name, 60)).collect();
            some.join(", ")
        }
    }
}

#[allow(clippy::wildcard_enum_match_arm, reason = "sections that say nothing of its outer form, also those to come")]
fn walk(bytes: &[u8], outer: usize, found: &mut Found) -> Result<(), String> {
    let mut depth = outer;
    let mut at_end = false;
    for payload in Parser::new(0).parse_all(bytes) {
        let payload = payload.map_err(|error| error.to_string())?;
        match payload {
            Payload::Version { encoding, .. } if depth == 0 => found.is_component = encoding == Encoding::Component,
            Payload::ModuleSection { .. } | Payload::ComponentSection { .. } => {
                depth += 1;
                if depth > NESTING {
                    return Err(format!("modules nested deeper than {NESTING}"));
                }
            }
            Payload::End(_) => {
                if depth == 0 {
                    at_end = true;
                } else {
                    depth -= 1;
                }
            }
            Payload::CustomSection(section) if section.name() == SECTION => {
                found.manifest.get_or_insert_with(|| section.data().to_vec());
            }
            Payload::ComponentImportSection(imports) if depth == 0 => {
                for import in imports {
                    found.imports.push(import.map_err(|error| error.to_string())?.name.name.to_owned());
                }
            }
            Payload::ComponentExportSection(exports) if depth == 0 => {
                for export in exports {
                    found.exports.push(export.map_err(|error| error.to_string())?.name.name.to_owned());
                }
            }
            Payload::ImportSection(imports) if depth == 0 => {
                for import in imports.into_imports() {
                    let import = import.map_err(|error| error.to_string())?;
                    found.imports.push(format!("{}.{}", import.module, import.name));
                }
            }
            Payload::ExportSection(exports) if depth == 0 => {
                for export in exports {
                    let export = export.map_err(|error| error.to_string())?;
                    if export.kind == ExternalKind::Func {
                        found.exports.push(export.name.to_owned());
                    }
                }
            }
            // Types, code and data: the compiler looks at those.
            _ => {}
        }
    }
    if at_end { Ok(()) } else { Err("it ends too early".to_owned()) }
}

/// The layer of configuration that a manifest brings, if there is a manifest.
pub fn layer(anatomy: &Anatomy) -> Option<&PluginLayer> {
    anatomy.manifest.as_ref().map(|manifest| &manifest.plugin)
}
