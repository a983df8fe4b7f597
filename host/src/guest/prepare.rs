//! From bytes to something that can run: which kind of guest it is, compiled and linked, with no store yet.

use std::sync::Arc;

use wasmtime::component::{Component, Linker};
use wasmtime::{InstancePre, Module};
use wasmtime_wasi::p2::bindings::CommandPre;

use super::bindings::check::PluginWithCheckPre;
use super::bindings::job::PluginPre;
use super::engine::{Engine, TABLE_ELEMENTS};
use super::store::Guest;
use super::{denials, imports, waits};
use crate::artifact::Kind;
use crate::compile::Compiled;

/// A guest that is ready to be instantiated. Holds compiled code and no memory of its own; shared by all runs of a version, and
/// by all plugins with the same artifact.
pub struct Prepared {
    pub(super) guest: Callable,
    /// What its linear memories hold from the start, in bytes.
    pub min_memory_bytes: u64,
    /// How many linear memories it has.
    pub memories: u32,
}

/// What there is to call.
pub(super) enum Callable {
    /// A component of our world.
    Job(PluginPre<Guest>),
    /// The same with the author's own health check.
    JobWithCheck(PluginPre<Guest>, PluginWithCheckPre<Guest>),
    /// A WASI command component.
    Command(CommandPre<Guest>),
    /// A preview 1 core module with `_start`.
    Preview1(InstancePre<Guest>),
}

impl Prepared {
    /// Whether the author exports a health check.
    pub fn has_check(&self) -> bool {
        match &self.guest {
            Callable::JobWithCheck(..) => true,
            Callable::Job(_) | Callable::Command(_) | Callable::Preview1(_) => false,
        }
    }
}

/// Why compiled code gives nothing that can run. One line for a person.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unloadable {
    /// The engine does not take the code: the code is to blame, and not the artifact that it was made from.
    #[error("{0}")]
    Code(String),
    /// The artifact imports what nobody provides, or wants more than the pool's places hold: compiling it again changes nothing.
    #[error("{0}")]
    Artifact(String),
}

/// The engine and what guests are linked with: made once.
pub struct Toolbox {
    pub(super) engine: Engine,
    components: Linker<Guest>,
    modules: wasmtime::Linker<Guest>,
}

impl Toolbox {
    /// Links all that a guest may import.
    ///
    /// # Errors
    /// Only if two imports have the same name, which a test would have seen.
    pub fn new(engine: Engine) -> anyhow::Result<Arc<Toolbox>> {
        let mut components = Linker::new(&engine.0);
        wasmtime_wasi::p2::add_to_linker_async(&mut components)?;
        wasmtime_wasi_http::p2::add_only_http_to_linker_async(&mut components)?;
        imports::add_to_linker(&mut components)?;
        components.allow_shadowing(true);
        denials::shadow(&mut components)?;
        waits::shadow(&mut components)?;
        let mut modules = wasmtime::Linker::new(&engine.0);
        wasmtime_wasi::p1::add_to_linker_async(&mut modules, Guest::preview1)?;
        modules.allow_shadowing(true);
        denials::shadow_preview1(&mut modules)?;
        waits::shadow_preview1(&mut modules)?;
        Ok(Arc::new(Toolbox { engine, components, modules }))
    }

    /// Compiles and links a guest of the given kind, in this process: for a person's own command. The host compiles by
    /// [`crate::compile`]. Takes as long as the code is large, on the calling thread and on rayon's.
    ///
    /// # Errors
    /// One line that says what is wrong with the code and what to do, for the plugin's report.
    pub fn prepare(&self, kind: Kind, bytes: &[u8]) -> Result<Prepared, String> {
        match kind {
            Kind::Preview1 => self.link_module(&Module::from_binary(&self.engine.0, bytes).map_err(why)?),
            Kind::Job | Kind::Command => {
                self.link_component(kind, &Component::from_binary(&self.engine.0, bytes).map_err(why)?)
            }
        }
    }

    /// Loads and links code that was compiled before.
    ///
    /// # Errors
    /// Whether it is the code's fault or the artifact's.
    pub fn load(&self, compiled: &Compiled) -> Result<Prepared, Unloadable> {
        let (engine, code) = (&self.engine.0, compiled.code());
        let spoilt = |error| Unloadable::Code(why(error));
        match compiled.kind() {
            Kind::Preview1 => {
                // SAFETY: the bytes are what this program's own compiler made with this engine's settings. Only `crate::compile`
                // makes a `Compiled`: from what its child, the same binary, answered through a pipe that no one else holds, or
                // from an entry of the cache, a file of this user alone, whose digest was checked on the very bytes given here.
                // They are memory of this process: no file that could change under us.
                let module = unsafe { Module::deserialize(engine, code) }.map_err(spoilt)?;
                self.link_module(&module).map_err(Unloadable::Artifact)
            }
            kind @ (Kind::Job | Kind::Command) => {
                // SAFETY: as above.
                let component = unsafe { Component::deserialize(engine, code) }.map_err(spoilt)?;
                self.link_component(kind, &component).map_err(Unloadable::Artifact)
            }
        }
    }

    fn link_module(&self, module: &Module) -> Result<Prepared, String> {
        let needs = module.resources_required();
        check_tables(needs.max_initial_table_size)?;
        let pre = self.modules.instantiate_pre(module).map_err(unresolved)?;
        Ok(Prepared {
            guest: Callable::Preview1(pre),
            min_memory_bytes: largest_bytes(needs.max_initial_memory_size),
            memories: needs.num_memories,
        })
    }

    fn link_component(&self, kind: Kind, component: &Component) -> Result<Prepared, String> {
        let needs = component.resources_required();
        check_tables(needs.as_ref().and_then(|needs| needs.max_initial_table_size))?;
        let pre = self.components.instantiate_pre(component).map_err(unresolved)?;
        let guest = if kind == Kind::Command {
            Callable::Command(CommandPre::new(pre).map_err(why)?)
        } else {
            let job = PluginPre::new(pre.clone()).map_err(why)?;
            match PluginWithCheckPre::new(pre) {
                Ok(with_check) => Callable::JobWithCheck(job, with_check),
                Err(_) => Callable::Job(job),
            }
        };
        Ok(Prepared {
            guest,
            min_memory_bytes: needs.as_ref().map_or(0, |needs| largest_bytes(needs.max_initial_memory_size)),
            memories: needs.as_ref().map_or(1, |needs| needs.num_memories),
        })
    }
}

fn why(error: wasmtime::Error) -> String {
    one_line(&error)
}

fn check_tables(elements: Option<u64>) -> Result<(), String> {
    match elements {
        Some(elements) if elements > TABLE_ELEMENTS as u64 => {
            Err(format!("it wants a table of {elements} elements, and an instance may have {TABLE_ELEMENTS}"))
        }
        _ => Ok(()),
    }
}

/// The largest memory, in bytes: what a run is admitted by. Further ones count when they are made, as growth does.
fn largest_bytes(pages: Option<u64>) -> u64 {
    pages.unwrap_or(0).saturating_mul(65_536)
}

fn unresolved(error: wasmtime::Error) -> String {
    format!(
        "it imports what no part of this host provides ({}): rebuild it for WASI 0.2 or preview 1 and windlass:job 0.1",
        one_line(&error)
    )
}

/// The whole chain of causes, short enough for a report.
pub(super) fn one_line(error: &wasmtime::Error) -> String {
    let text = format!("{error:#}");
    crate::text::shown(&text.split_whitespace().collect::<Vec<_>>().join(" "), 512)
}
