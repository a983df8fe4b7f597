//! The JSON schema and the reference page, from the tables of keys.

use std::fmt::Write as _;

use serde_json::{Map, Value as Json, json};

use super::keys::{HOST, Key, Kind, LATER_HOST, LATER_PLUGIN, PLUGIN};

const AMOUNT: &str = r"^[+]?[0-9]+(\.[0-9]+)?([eE][+-]?[0-9]+)?(Ki|Mi|Gi|Ti|Pi|Ei|m|k|M|G|T|P|E)?$";
const DURATION: &str = r"^([0-9]+(\.[0-9]+)?(ms|s|m|h|d))+$";

/// The JSON schema of a configuration file, for editors and pipelines.
pub fn json_schema() -> Json {
    let mut root = refusing(group("", HOST), LATER_HOST);
    if let Some(Json::Object(properties)) = root.get_mut("properties") {
        properties.insert("defaults".to_owned(), json!({ "$ref": "#/$defs/plugin" }));
        properties.insert(
            "plugins".to_owned(),
            json!({
                "type": "object",
                "description": "Plugins by name",
                "propertyNames": { "pattern": "^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$", "not": { "const": "windlass" } },
                "additionalProperties": { "anyOf": [{ "$ref": "#/$defs/plugin" }, { "type": "null" }] },
            }),
        );
    }
    root.insert("$schema".to_owned(), json!("https://json-schema.org/draft/2020-12/schema"));
    root.insert("title".to_owned(), json!("windlass.yaml"));
    root.insert("$defs".to_owned(), json!({ "plugin": refusing(group("", PLUGIN), LATER_PLUGIN) }));
    Json::Object(root)
}

/// Adds the keys of later versions, so that an editor says more of them than that they are unknown. They take no value at all.
fn refusing(mut group: Map<String, Json>, later: &[&str]) -> Map<String, Json> {
    if let Some(Json::Object(properties)) = group.get_mut("properties") {
        for key in later.iter().filter(|key| !key.contains('.')) {
            properties.insert((*key).to_owned(), json!({ "not": {}, "description": "Not in this version" }));
        }
    }
    group
}

fn group(prefix: &str, table: &[Key]) -> Map<String, Json> {
    let mut properties = Map::new();
    for key in table {
        let Some(rest) = key.path.strip_prefix(prefix) else { continue };
        match rest.split_once('.') {
            None => {
                properties.insert(rest.to_owned(), property(key));
            }
            Some((name, _)) if !properties.contains_key(name) => {
                properties.insert(name.to_owned(), Json::Object(group(&format!("{prefix}{name}."), table)));
            }
            Some(_) => {}
        }
    }
    Map::from_iter([
        ("type".to_owned(), json!("object")),
        ("additionalProperties".to_owned(), json!(false)),
        ("properties".to_owned(), Json::Object(properties)),
    ])
}

fn property(key: &Key) -> Json {
    let mut schema = match key.kind {
        Kind::Bool => json!({ "type": "boolean" }),
        Kind::True => json!({ "const": true }),
        Kind::Whole(least, most) => {
            json!({ "anyOf": [{ "type": "number", "minimum": least, "maximum": most }, { "type": "string", "pattern": AMOUNT }] })
        }
        Kind::Bytes(least, most) => {
            json!({ "anyOf": [{ "type": "number", "minimum": least, "maximum": most }, { "type": "string", "pattern": AMOUNT }] })
        }
        Kind::Seconds(least, most) => json!({ "type": "number", "minimum": least, "maximum": most }),
        Kind::Duration(..) => json!({ "type": "string", "pattern": DURATION }),
        Kind::Text => json!({ "type": "string" }),
        Kind::OneOf(words, _) => json!({ "enum": words }),
        Kind::Address => json!({ "type": "string" }),
        Kind::Texts => json!({ "type": "array", "items": { "type": ["string", "integer"] } }),
        Kind::TextMap => json!({ "type": "object", "additionalProperties": { "type": ["string", "integer"] } }),
    };
    if let Json::Object(map) = &mut schema {
        map.insert("description".to_owned(), json!(format!("{}. Default: {}", key.meaning, key.default)));
    }
    schema
}

/// The reference page of the configuration, in Markdown.
pub fn reference_page() -> String {
    let mut page = String::from(
        "# Configuration\n\n\
         This page is made from the tables that the host reads with (`host/core/src/config/keys.rs`); a test keeps it so.\n\n\
         `windlass.yaml` is YAML with `camelCase` keys. An unknown key is an error that names the nearest known one. One bad entry in\n\
         `plugins` stops nobody else: it stands in the health report with the reason. `windlass check` prints each effective value and\n\
         where it comes from; `windlass schema` prints the JSON schema.\n\n\
         Amounts are Kubernetes quantities (`10G`, `64Mi`). Durations in keys that end in `Seconds` are numbers, elsewhere `30s`, `5m`, `1h`.\n\
         What YAML 1.1 and 1.2 read differently (`no`, `0100`, `1_000`) is refused with the right spelling.\n\n\
         A plugin's values come from, the later over the earlier: the built-in defaults, its own manifest, `defaults`, its entry.\n\n\
         ## Top level\n\n",
    );
    table(&mut page, HOST);
    page.push_str(
        "| `defaults` | keys of a plugin | none | For all plugins, below their own entries |\n\
         | `plugins` | names to plugins | none | Names are DNS-1123 labels of at most 63 characters; `windlass` is taken |\n\n",
    );
    later(&mut page, LATER_HOST);
    page.push_str("## Plugins\n\nAt most one of `every`, `continuous` and `once`; with none of them a plugin is started by hand.\n\n");
    table(&mut page, PLUGIN);
    page.push('\n');
    later(&mut page, LATER_PLUGIN);
    page
}

fn table(page: &mut String, keys: &[Key]) {
    page.push_str("| key | takes | default | meaning |\n| --- | --- | --- | --- |\n");
    for key in keys {
        let takes = match key.kind {
            Kind::Bool => "`true` or `false`".to_owned(),
            Kind::True => "`true`".to_owned(),
            Kind::Whole(..) => "a number".to_owned(),
            Kind::Bytes(..) => "an amount".to_owned(),
            Kind::Seconds(..) => "seconds".to_owned(),
            Kind::Duration(..) => "a duration".to_owned(),
            Kind::Text => "text".to_owned(),
            Kind::OneOf(words, _) => words.iter().map(|word| format!("`{word}`")).collect::<Vec<_>>().join(", "),
            Kind::Address => "an address".to_owned(),
            Kind::Texts => "a list of texts".to_owned(),
            Kind::TextMap => "names and texts".to_owned(),
        };
        let _ = writeln!(page, "| `{}` | {takes} | {} | {} |", key.path, key.default, key.meaning);
    }
}

fn later(page: &mut String, keys: &[&str]) {
    let names: Vec<_> = keys.iter().map(|key| format!("`{key}`")).collect();
    if names.is_empty() {
        return;
    }
    let _ = writeln!(page, "Refused by name, since they are not in this version: {}.\n", names.join(", "));
}
