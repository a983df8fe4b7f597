//! `log` and `tracing` inside a guest: records become lines of the run's log, with their fields.

/// How important a log line is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// Steps inside a function.
    Trace,
    /// For whoever debugs the job.
    Debug,
    /// For an operator.
    Info,
    /// Something is odd.
    Warn,
    /// Something failed.
    Error,
}

/// Where lines go: the host, or the test that runs on this thread.
fn emit(level: Level, message: &str, fields: &[(String, String)]) {
    #[cfg(target_arch = "wasm32")]
    crate::guest::log(level, message, fields);
    #[cfg(not(target_arch = "wasm32"))]
    crate::testing::capture(level, message, fields);
}

/// Installs both, once; further calls do nothing.
pub(crate) fn install() {
    #[cfg(feature = "log")]
    with_log::install();
    #[cfg(feature = "tracing")]
    with_tracing::install();
}

#[cfg(feature = "log")]
mod with_log {
    use super::{Level, emit};

    struct ToHost;

    impl log::Log for ToHost {
        fn enabled(&self, _: &log::Metadata<'_>) -> bool {
            true
        }

        fn log(&self, record: &log::Record<'_>) {
            let level = match record.level() {
                log::Level::Trace => Level::Trace,
                log::Level::Debug => Level::Debug,
                log::Level::Info => Level::Info,
                log::Level::Warn => Level::Warn,
                log::Level::Error => Level::Error,
            };
            emit(level, &record.args().to_string(), &[]);
        }

        fn flush(&self) {}
    }

    pub(super) fn install() {
        if log::set_logger(&ToHost).is_ok() {
            log::set_max_level(log::LevelFilter::Trace);
        }
    }
}

#[cfg(feature = "tracing")]
mod with_tracing {
    use std::fmt;
    use std::sync::atomic::{AtomicU64, Ordering};

    use tracing::field::{Field, Visit};
    use tracing::span;

    use super::{Level, emit};

    /// Writes events; spans are not kept.
    struct ToHost(AtomicU64);

    #[derive(Default)]
    struct Fields {
        message: String,
        others: Vec<(String, String)>,
    }

    impl Visit for Fields {
        fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
            match field.name() {
                "message" => self.message = format!("{value:?}"),
                name => self.others.push((name.to_owned(), format!("{value:?}"))),
            }
        }

        fn record_str(&mut self, field: &Field, value: &str) {
            match field.name() {
                "message" => self.message = value.to_owned(),
                name => self.others.push((name.to_owned(), value.to_owned())),
            }
        }
    }

    impl tracing::Subscriber for ToHost {
        fn enabled(&self, _: &tracing::Metadata<'_>) -> bool {
            true
        }

        fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
            span::Id::from_u64(self.0.fetch_add(1, Ordering::Relaxed).max(1))
        }

        fn record(&self, _: &span::Id, _: &span::Record<'_>) {}

        fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}

        fn event(&self, event: &tracing::Event<'_>) {
            let level = match *event.metadata().level() {
                tracing::Level::TRACE => Level::Trace,
                tracing::Level::DEBUG => Level::Debug,
                tracing::Level::INFO => Level::Info,
                tracing::Level::WARN => Level::Warn,
                tracing::Level::ERROR => Level::Error,
            };
            let mut fields = Fields::default();
            event.record(&mut fields);
            emit(level, &fields.message, &fields.others);
        }

        fn enter(&self, _: &span::Id) {}

        fn exit(&self, _: &span::Id) {}
    }

    pub(super) fn install() {
        // Another subscriber that the author installed stands.
        let _ = tracing::subscriber::set_global_default(ToHost(AtomicU64::new(1)));
    }
}
