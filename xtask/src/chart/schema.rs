//! The schema of the chart's values: the hand-written part filled in from what `windlass schema` says of windlass.yaml. Pure, so that the
//! integration tests can make it too.

use serde_json::{Map, Value as Json, json};

/// Keys of windlass.yaml that the chart sets, and what to use instead.
const OURS: [(&str, &str); 3] = [
    ("pluginsDir", "set by the chart: see pluginsVolume"),
    ("dataDir", "set by the chart: see persistence"),
    ("configDir", "set by the chart: see extraConfigMaps"),
];
const LATER: &str = "not in this version";

/// Above this, YAML tools print a whole number as `1e+06`: as text it would be another one.
const WHOLE_MOST: u64 = 999_999;

/// Fills `$made` and `$needs` of the hand-written schema from the host's own.
///
/// # Errors
/// One of the two is no JSON, or is not built as expected.
pub(crate) fn render(ours: &str, host: &str) -> Result<String, String> {
    let parse = |text: &str, name: &str| serde_json::from_str::<Json>(text).map_err(|error| format!("{name}: {error}"));
    let (mut ours, host) = (parse(ours, "values.schema.in.json")?, parse(host, "windlass schema")?);
    let missing = |what: &str| format!("`windlass schema` has no {what}");
    let keys = host.pointer("/properties").and_then(Json::as_object).ok_or_else(|| missing("properties"))?;
    let mut plugin = host.pointer("/$defs/plugin").cloned().ok_or_else(|| missing("$defs.plugin"))?;
    adapt(&mut plugin);
    // An entry without a value is an entry all the same.
    plugin["type"] = json!(["object", "null"]);
    let mut defaults = plugin.clone();
    defaults["properties"]["source"] = refused("for a plugin's own entry");
    let names = keys.get("plugins").and_then(|plugins| plugins.pointer("/propertyNames/pattern"));
    let names = names.and_then(Json::as_str).ok_or_else(|| missing("pattern for the names of plugins"))?;
    // Not `propertyNames`: Helm 4 names another place than the one that is wrong.
    let plugins = json!({
        "type": "object",
        "properties": { "windlass": refused("another name: this one is the host's own") },
        "patternProperties": { names: { "$ref": "#/definitions/plugin" } },
        "additionalProperties": refused("a name of small letters, digits and -, 63 at most"),
    });
    let has = |key: &str| {
        let found = key.strip_prefix("plugin.").map_or_else(|| keys.get(key), |key| plugin["properties"].get(key));
        found.is_some_and(|found| !is_later(found) && found.get("const") != Some(&json!(LATER)))
    };
    if let Some(properties) = ours.get_mut("properties").and_then(Json::as_object_mut) {
        for property in properties.values_mut() {
            match property.get("$made").and_then(Json::as_str) {
                Some("plugins") => *property = plugins.clone(),
                Some("defaults") => *property = json!({ "$ref": "#/definitions/defaults" }),
                Some("config") => *property = config(keys),
                _ => {}
            }
            if let Some(Json::String(key)) = property.as_object_mut().and_then(|property| property.remove("$needs"))
                && !has(&key)
            {
                // Empty as the chart's own default is.
                let what = if property["type"] == "array" { "items" } else { "additionalProperties" };
                *property = json!({ "type": property["type"], what: refused(LATER) });
            }
        }
    }
    ours["definitions"]["plugin"] = plugin;
    ours["definitions"]["defaults"] = defaults;
    Ok(format!("{ours:#}\n"))
}

/// What may stand in `config`: the host's keys, but for those that the chart sets or that have a place of their own.
fn config(keys: &Map<String, Json>) -> Json {
    let mut properties = keys.clone();
    properties.retain(|name, _| !["plugins", "defaults"].contains(&name.as_str()));
    for (name, instead) in OURS {
        properties.insert(name.to_owned(), refused(instead));
    }
    let mut config = json!({ "type": "object", "additionalProperties": false, "properties": properties });
    adapt(&mut config);
    config["properties"]["health"]["properties"]["listen"] = refused("set by the chart");
    config
}

/// A schema that nothing satisfies, and whose message says why: validators name the value that they want.
fn refused(why: &str) -> Json {
    json!({ "const": why })
}

fn is_later(schema: &Json) -> bool {
    schema.get("not") == Some(&json!({}))
}

/// From what `windlass schema` says to what a chart can hold: keys of later versions are refused by name, and a whole number that
/// Helm would write in another way where the host reads text has to be quoted.
fn adapt(schema: &mut Json) {
    if is_later(schema) {
        *schema = refused(LATER);
        return;
    }
    match schema {
        Json::Object(map) => {
            if map.get("type") == Some(&json!(["string", "integer"])) {
                map.insert("minimum".to_owned(), json!(0));
                map.insert("maximum".to_owned(), json!(WHOLE_MOST));
            }
            map.values_mut().for_each(adapt);
        }
        Json::Array(all) => all.iter_mut().for_each(adapt),
        Json::Null | Json::Bool(_) | Json::Number(_) | Json::String(_) => {}
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may stop here")]
    use super::*;

    const HOST: &str = r#"{
        "properties": {
            "plugins": { "propertyNames": { "pattern": "x" } },
            "health": { "properties": { "listen": {}, "detail": {} } },
            "configDir": { "not": {} },
            "drainSeconds": { "type": "number" }
        },
        "$defs": { "plugin": { "type": "object", "properties": {
            "source": { "type": "string" }, "queue": { "not": {} },
            "args": { "items": { "type": ["string", "integer"] } }
        } } }
    }"#;

    #[test]
    fn the_hosts_keys_are_filled_in_and_later_ones_refused_by_name() {
        let ours = r#"{ "properties": {
            "plugins": { "$made": "plugins" }, "config": { "$made": "config" }, "defaults": { "$made": "defaults" },
            "extraConfigMaps": { "$needs": "configDir", "type": "array" },
            "more": { "$needs": "plugin.queue", "type": "object" }, "less": { "$needs": "drainSeconds", "type": "object" }
        }, "definitions": {} }"#;
        let made: Json = serde_json::from_str(&render(ours, HOST).unwrap()).unwrap();
        let at = |path: &str| made.pointer(path).cloned().unwrap_or(Json::Null);
        assert_eq!(at("/definitions/plugin/properties/queue/const"), LATER);
        assert_eq!(at("/definitions/plugin/properties/args/items/maximum"), WHOLE_MOST);
        assert_eq!(at("/definitions/defaults/properties/source/const"), "for a plugin's own entry");
        assert_eq!(at("/definitions/plugin/properties/source/type"), "string");
        assert_eq!(at("/properties/config/properties/drainSeconds/type"), "number");
        assert_eq!(at("/properties/config/properties/health/properties/listen/const"), "set by the chart");
        assert_eq!(at("/properties/config/properties/plugins"), Json::Null);
        assert_eq!(at("/properties/extraConfigMaps/items/const"), LATER);
        assert_eq!(at("/properties/more/additionalProperties/const"), LATER);
        assert_eq!(at("/properties/plugins/patternProperties/x/$ref"), "#/definitions/plugin");
        assert_eq!(at("/properties/less"), json!({ "type": "object" }));
    }

    #[test]
    fn what_is_no_schema_is_said() {
        assert!(render("{}", "{}").unwrap_err().contains("has no properties"));
        assert!(render("{", HOST).unwrap_err().contains("values.schema.in.json"));
    }
}
