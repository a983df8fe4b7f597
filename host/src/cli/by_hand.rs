//! `windlass swap` and `windlass rollback`: a version chosen by a person.

use std::time::Duration;

use anyhow::anyhow;

use super::client::Admin;
use super::{Failure, print};
use crate::core::name::PluginName;

/// Whose versions.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The plugin
    name: String,
    #[command(flatten)]
    admin: Admin,
}

/// Asks for it, and prints what was done. `verb` is the path's last part.
pub fn run(args: &Args, verb: &str) -> Result<(), Failure> {
    let name = PluginName::new(&args.name).map_err(|bad| Failure::Usage(bad.into()))?;
    let path = format!("/plugins/{name}/{verb}");
    let (code, body) = args.admin.ask("POST", &path, Duration::from_secs(15)).map_err(Failure::Failed)?;
    match code {
        200 => {
            print(format_args!("{name}: {body}"));
            Ok(())
        }
        _ => Err(Failure::Failed(anyhow!("{name}: {}", body.trim_end()))),
    }
}
