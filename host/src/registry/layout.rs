//! What a plugin looks like in a registry: reads the manifests that `windlass push`, `oras push` and other wasm tools make, and
//! makes the CNCF's layout. Pure.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::artifact::{ARTIFACT_BYTES, Anatomy, Kind, digest_of};
use crate::core::name::Digest;

/// An OCI image manifest.
pub(super) const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
/// An OCI index.
pub(super) const INDEX: &str = "application/vnd.oci.image.index.v1+json";
const DOCKER_LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
/// What we say we take. Indexes too, so that a registry shows us one and we can say what it is.
pub(super) const ACCEPT: &str = "application/vnd.oci.image.manifest.v1+json, application/vnd.oci.image.index.v1+json, \
     application/vnd.docker.distribution.manifest.v2+json, application/vnd.docker.distribution.manifest.list.v2+json";

const CONFIG: &str = "application/vnd.wasm.config.v0+json";
const WASM: &str = "application/wasm";
/// Layers that are wasm by their type; the last two by tools from before the CNCF's layout.
const WASM_LAYERS: [&str; 4] = [
    WASM,
    "application/vnd.bytecodealliance.wasm.component.layer.v0+wasm",
    "application/vnd.wasm.content.layer.v1+wasm",
    "application/vnd.module.wasm.content.layer.v1+wasm",
];
/// Layers that may be anything: taken for wasm if their title says so. This is how `oras push job.wasm` writes.
const PLAIN_LAYERS: [&str; 2] = ["application/vnd.oci.image.layer.v1.tar", "application/octet-stream"];
const TITLE: &str = "org.opencontainers.image.title";

/// A part of a manifest.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Descriptor {
    pub(super) media_type: String,
    pub(super) digest: String,
    pub(super) size: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) artifact_type: Option<String>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(super) annotations: BTreeMap<String, String>,
}

/// A manifest or an index, as far as it matters here.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Manifest {
    #[serde(default)]
    pub(super) media_type: Option<String>,
    #[serde(default)]
    pub(super) config: Option<Descriptor>,
    #[serde(default)]
    pub(super) layers: Vec<Descriptor>,
    #[serde(default)]
    pub(super) manifests: Option<Vec<Descriptor>>,
}

/// The one layer that matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Layer {
    pub(super) digest: Digest,
    pub(super) size: u64,
}

/// Finds the wasm in a manifest. `media_type` is what the registry called it.
///
/// # Errors
/// What it is instead, and what to do.
pub(super) fn wasm_layer(bytes: &[u8], media_type: &str) -> Result<Layer, String> {
    let manifest: Manifest = serde_json::from_slice(bytes)
        .map_err(|error| format!("its manifest cannot be read ({error}): push it again"))?;
    let named = manifest.media_type.as_deref().unwrap_or(media_type);
    if let Some(platforms) = &manifest.manifests {
        return Err(is_index(platforms.len()));
    }
    if named == INDEX || named == DOCKER_LIST {
        return Err(is_index(0));
    }
    let config = manifest.config.as_ref().map(|config| config.media_type.as_str()).unwrap_or_default();
    let is_image =
        matches!(config, "application/vnd.oci.image.config.v1+json" | "application/vnd.docker.container.image.v1+json");
    match manifest.layers.as_slice() {
        _ if is_image && !manifest.layers.iter().any(is_wasm) => {
            Err("is a container image and not a plugin: push the .wasm file itself with `windlass push`".to_owned())
        }
        [] => Err("has no layer: push it again with `windlass push`".to_owned()),
        [layer] if is_wasm(layer) => read_layer(layer),
        [layer] => Err(format!(
            "has a layer of media type {}, and a plugin is one of application/wasm: push it with `windlass push`",
            crate::text::shown(&layer.media_type, 100)
        )),
        layers => Err(format!(
            "has {} layers, and a plugin is one .wasm file: push it alone with `windlass push`",
            layers.len()
        )),
    }
}

fn is_index(platforms: usize) -> String {
    format!(
        "is an index of {platforms} platforms, and a plugin is one artifact for all: push it with `windlass push`, or with `oras \
         push` without --artifact-platform"
    )
}

fn is_wasm(layer: &Descriptor) -> bool {
    let by_title = layer.annotations.get(TITLE).is_some_and(|title| title.ends_with(".wasm"));
    let media_type = layer.media_type.as_str();
    WASM_LAYERS.contains(&media_type) || (by_title && PLAIN_LAYERS.contains(&media_type))
}

fn read_layer(layer: &Descriptor) -> Result<Layer, String> {
    let digest = Digest::parse(&layer.digest).ok_or("names its layer by another digest than sha256: push it again")?;
    if layer.size > ARTIFACT_BYTES {
        return Err(format!(
            "has {} MiB; the most is {} MiB: strip it of what it does not need, and push it again",
            layer.size >> 20,
            ARTIFACT_BYTES >> 20
        ));
    }
    Ok(Layer { digest, size: layer.size })
}

/// What is pushed for one wasm file.
pub(super) struct Written {
    /// The manifest's bytes.
    pub(super) manifest: Vec<u8>,
    /// The config's bytes.
    pub(super) config: Vec<u8>,
}

/// Makes the CNCF's layout. The same file gives the same bytes as long as `created` is the same.
pub(super) fn write(digest: Digest, size: usize, anatomy: &Anatomy, created: &str) -> Written {
    let (os, is_component) = match anatomy.kind {
        Kind::Job | Kind::Command => ("wasip2", true),
        Kind::Preview1 => ("wasip1", false),
    };
    let mut config = json!({
        "created": created,
        "architecture": "wasm",
        "os": os,
        "layerDigests": [digest.to_string()],
    });
    if let (true, Some(config)) = (is_component, config.as_object_mut()) {
        let component = json!({ "exports": anatomy.exports, "imports": anatomy.imports });
        config.insert("component".to_owned(), component);
    }
    let config = config.to_string().into_bytes();
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": { "mediaType": CONFIG, "digest": digest_of(&config).to_string(), "size": config.len() },
        "layers": [{ "mediaType": WASM, "digest": digest.to_string(), "size": size }],
    });
    Written { manifest: manifest.to_string().into_bytes(), config }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may stop here")]
    use super::*;

    const HEX: &str = "sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

    fn manifest(config: &str, layers: &serde_json::Value) -> Vec<u8> {
        let config = json!({ "mediaType": config, "digest": HEX, "size": 2 });
        json!({ "schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": layers })
            .to_string()
            .into_bytes()
    }

    fn layer(media_type: &str, title: &str) -> serde_json::Value {
        json!({ "mediaType": media_type, "digest": HEX, "size": 7, "annotations": { TITLE: title } })
    }

    #[test]
    fn what_tools_push_is_taken() {
        for (config, media_type, title) in [
            (CONFIG, WASM, ""),
            ("application/vnd.oci.empty.v1+json", WASM, "job.wasm"),
            ("application/vnd.oci.empty.v1+json", "application/vnd.oci.image.layer.v1.tar", "job.wasm"),
            ("application/vnd.unknown.config.v1+json", "application/vnd.oci.image.layer.v1.tar", "job.wasm"),
            ("application/vnd.wasm.config.v1+json", "application/vnd.wasm.content.layer.v1+wasm", ""),
            ("application/vnd.oci.empty.v1+json", "application/octet-stream", "job.wasm"),
        ] {
            let bytes = manifest(config, &json!([layer(media_type, title)]));
            assert_eq!(wasm_layer(&bytes, MANIFEST).unwrap().size, 7, "{config} {media_type}");
        }
    }

    #[test]
    fn what_is_something_else_is_called_by_its_name() {
        let wasm = layer(WASM, "");
        let image = "application/vnd.oci.image.config.v1+json";
        let gzip = layer("application/vnd.oci.image.layer.v1.tar+gzip", "");
        let large = json!({ "mediaType": WASM, "digest": HEX, "size": ARTIFACT_BYTES + 1 });
        let sha512 = json!({ "mediaType": WASM, "digest": "sha512:00", "size": 1 });
        for (bytes, said) in [
            (manifest(CONFIG, &json!([wasm, wasm])), "2 layers"),
            (manifest(CONFIG, &json!([])), "no layer"),
            (manifest(image, &json!([gzip, gzip])), "container image"),
            (manifest(CONFIG, &json!([layer("text/html", "x.wasm")])), "media type text/html"),
            (
                manifest(CONFIG, &json!([layer("application/octet-stream", "job.txt")])),
                "media type application/octet-stream",
            ),
            (manifest(CONFIG, &json!([large])), "the most is 256 MiB"),
            (manifest(CONFIG, &json!([sha512])), "another digest than sha256"),
            (json!({ "mediaType": INDEX, "manifests": [] }).to_string().into_bytes(), "index of 0 platforms"),
            (b"{".to_vec(), "cannot be read"),
            (b"<html>".to_vec(), "cannot be read"),
        ] {
            let why = wasm_layer(&bytes, "").unwrap_err();
            assert!(why.contains(said) && why.contains("push"), "{why:?} lacks {said:?}");
        }
    }
}
