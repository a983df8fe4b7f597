//! The manifest that `#[job]` writes into the artifact.

use serde_json::json;

use crate::arguments::Arguments;

/// The contract that this SDK is built for: the version of the WIT package.
const ABI: &str = "0.1.0";

/// The manifest as the host reads it.
pub(crate) fn json(arguments: &Arguments) -> String {
    let crate_says = |variable: &str| std::env::var(variable).ok();
    let name = arguments.name.clone().or_else(|| crate_says("CARGO_PKG_NAME").map(|name| name.replace('_', "-")));
    json!({
        "abi": ABI,
        "name": name,
        "version": arguments.version.clone().or_else(|| crate_says("CARGO_PKG_VERSION")),
        "wants": arguments.wants,
        "plugin": arguments.plugin,
    })
    .to_string()
}
