//! `windlass new`: a job of one's own, from an empty folder to something that builds.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use super::{Failure, print};
use crate::core::name::PluginName;

/// What to begin.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The job's name: a-z, 0-9 and `-`
    name: String,
    /// The language
    #[arg(long, value_enum, default_value_t = Lang::Rust)]
    lang: Lang,
    /// Where; a new folder of the job's name if left out
    #[arg(long, value_name = "DIR")]
    path: Option<PathBuf>,
    /// A local copy of windlass-sdk to build with, instead of the published one
    #[arg(long, value_name = "DIR")]
    sdk_path: Option<PathBuf>,
}

/// Languages that there is a template for.
#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum Lang {
    /// Rust, with windlass-sdk
    Rust,
}

/// A template: where each file goes, and its text.
const RUST: [(&str, &str); 5] = [
    ("Cargo.toml", include_str!("new/rust/Cargo.toml.in")),
    ("src/lib.rs", include_str!("new/rust/lib.rs.in")),
    ("windlass.yaml", include_str!("new/rust/windlass.yaml.in")),
    ("README.md", include_str!("new/rust/README.md.in")),
    (".gitignore", "/target\n/plugins\n"),
];

/// Writes the files, and says what to do next.
pub fn run(args: Args) -> Result<(), Failure> {
    let folder = args.path.clone().unwrap_or_else(|| PathBuf::from(&args.name));
    let Lang::Rust = args.lang;
    write(&args, &folder).map_err(Failure::Usage)?;
    print(format_args!("{} is there. Next:\n\n", folder.display()));
    print(format_args!("  cd {}\n", folder.display()));
    print(format_args!("  cargo test                                     # the job, without wasm\n"));
    print(format_args!("  cargo build --release --target wasm32-wasip2   # needs: rustup target add wasm32-wasip2\n"));
    print(format_args!("  windlass once target/wasm32-wasip2/release/{}.wasm\n", crate_name(&args.name)));
    print(format_args!(
        "  windlass run                                   # reads windlass.yaml; health on port 8080\n"
    ));
    Ok(())
}

fn write(args: &Args, folder: &Path) -> Result<()> {
    PluginName::new(&args.name)?;
    let is_there = fs::read_dir(folder).is_ok_and(|mut entries| entries.next().is_some());
    if is_there {
        bail!("{} is there and not empty: give another name, or --path", folder.display());
    }
    let sdk = match &args.sdk_path {
        None => format!("\"{}\"", env!("CARGO_PKG_VERSION")),
        Some(path) => {
            let path = fs::canonicalize(path).with_context(|| format!("--sdk-path {}", path.display()))?;
            format!("{{ path = {:?} }}", path.display().to_string())
        }
    };
    for (file, text) in RUST {
        let path = folder.join(file);
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent).with_context(|| format!("making {}", parent.display()))?;
        }
        let text =
            text.replace("@NAME@", &args.name).replace("@CRATE@", &crate_name(&args.name)).replace("@SDK@", &sdk);
        fs::write(&path, text).with_context(|| format!("writing {}", path.display()))?;
    }
    Ok(())
}

fn crate_name(name: &str) -> String {
    name.replace('-', "_")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may stop here")]
    use super::*;

    fn args(name: &str, folder: &Path) -> Args {
        Args { name: name.to_owned(), lang: Lang::Rust, path: Some(folder.to_owned()), sdk_path: None }
    }

    #[test]
    fn a_new_job_has_no_placeholder_left_and_a_configuration_that_is_taken() {
        let folder = tempfile::tempdir().unwrap();
        let new = folder.path().join("my-job");
        write(&args("my-job", &new), &new).unwrap();
        for (file, _) in RUST {
            assert!(!fs::read_to_string(new.join(file)).unwrap().contains('@'), "{file}");
        }
        let config =
            crate::core::config::Config::from_yaml(&fs::read_to_string(new.join("windlass.yaml")).unwrap()).unwrap();
        assert!(config.plugins.values().all(Result::is_ok), "{:?}", config.plugins);
        let again = write(&args("my-job", &new), &new).unwrap_err().to_string();
        assert!(again.contains("not empty"), "{again}");
        assert!(write(&args("My Job", &folder.path().join("x")), &folder.path().join("x")).is_err());
    }
}
