//! What an author says of a plugin, in a custom section of its file: read before anything runs, and never trusted with a grant.

use crate::core::config::PluginLayer;
use crate::text::shown;

/// The name of the custom section.
pub const SECTION: &str = "windlass:manifest";

/// The version of the contract that this host speaks. While it begins with 0, each minor version is a contract of its own.
pub const ABI: semver::Version = semver::Version::new(0, 1, 0);

/// The most that a manifest may take.
const MANIFEST_BYTES: usize = 64 << 10;

/// An author's word on a plugin.
#[derive(Debug, Clone)]
pub struct Manifest {
    /// The contract it was built for.
    pub abi: semver::Version,
    /// What the author calls it.
    pub name: Option<String>,
    /// The author's version.
    pub version: Option<String>,
    /// Capabilities it would like to have: shown, not granted.
    pub wants: Vec<String>,
    /// Defaults for its entry, below everything that the operator says.
    pub plugin: PluginLayer,
}

#[derive(serde::Deserialize)]
struct Written {
    abi: String,
    name: Option<String>,
    version: Option<String>,
    #[serde(default)]
    wants: Vec<String>,
    #[serde(default)]
    plugin: Option<serde_json::Value>,
}

impl Manifest {
    /// Reads a section's bytes.
    ///
    /// # Errors
    /// One line: not JSON, an unknown plugin key, or a contract that this host does not speak.
    pub fn parse(bytes: &[u8]) -> Result<Manifest, String> {
        if bytes.len() > MANIFEST_BYTES {
            return Err(format!("has a manifest of {} KiB; the most is {}", bytes.len() >> 10, MANIFEST_BYTES >> 10));
        }
        let bad =
            |what: String| format!("has a manifest that cannot be read ({what}): build it again with windlass-sdk");
        let written: Written = serde_json::from_slice(bytes).map_err(|error| bad(error.to_string()))?;
        let abi = semver::Version::parse(&written.abi).map_err(|error| bad(format!("abi: {error}")))?;
        // The contract is looked at first: what a newer one says elsewhere may not be readable at all.
        if (abi.major, abi.minor) > (ABI.major, ABI.minor) {
            return Err(format!(
                "was built for windlass:job {abi}, and this host speaks {ABI}: use a newer host, or build it with an older SDK"
            ));
        }
        if (abi.major, abi.minor) < (ABI.major, ABI.minor) {
            return Err(format!(
                "was built for windlass:job {abi}, which this host no longer speaks: build it with a newer SDK"
            ));
        }
        let plugin = match written.plugin {
            Some(value) => PluginLayer::from_json(&value.to_string()).map_err(|error| bad(error.to_string()))?,
            None => PluginLayer::default(),
        };
        let short = |text: Option<String>| text.map(|text| shown(&text, 128));
        Ok(Manifest {
            abi,
            name: short(written.name),
            version: short(written.version),
            wants: written.wants.iter().take(32).map(|want| shown(want, 256)).collect(),
            plugin,
        })
    }
}
