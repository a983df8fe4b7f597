//! What is generated from the WIT contracts: our own, and `wasi:logging`, for which there is no crate.

#[allow(missing_docs, unreachable_pub, clippy::all, reason = "generated; the WIT is where it is documented")]
pub(super) mod job {
    wasmtime::component::bindgen!({
        path: "../guest-sdk/wit",
        world: "windlass:job/plugin",
        imports: { default: trappable },
        exports: { default: async },
    });
}

#[allow(missing_docs, unreachable_pub, clippy::all, reason = "generated; the WIT is where it is documented")]
pub(super) mod check {
    wasmtime::component::bindgen!({
        path: "../guest-sdk/wit",
        world: "windlass:job/plugin-with-check",
        imports: { default: trappable },
        exports: { default: async },
        with: {
            "windlass:job/types": super::job::windlass::job::types,
            "windlass:job/host": super::job::windlass::job::host,
        },
    });
}

/// `wasi:logging` as it is versioned today.
#[allow(missing_docs, unreachable_pub, clippy::all, reason = "generated; the WIT is where it is documented")]
pub(super) mod logging_draft {
    wasmtime::component::bindgen!({
        inline: "
            package wasi:logging@0.1.0-draft;
            interface logging {
                enum level { trace, debug, info, warn, error, critical }
                log: func(level: level, context: string, message: string);
            }
            world imports { import logging; }
        ",
        imports: { default: trappable },
    });
}

/// `wasi:logging` as older tools know it, without a version.
#[allow(missing_docs, unreachable_pub, clippy::all, reason = "generated; the WIT is where it is documented")]
pub(super) mod logging_unversioned {
    wasmtime::component::bindgen!({
        inline: "
            package wasi:logging;
            interface logging {
                enum level { trace, debug, info, warn, error, critical }
                log: func(level: level, context: string, message: string);
            }
            world imports { import logging; }
        ",
        imports: { default: trappable },
    });
}
