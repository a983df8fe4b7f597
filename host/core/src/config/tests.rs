//! Configuration as people write it, and what they are told when they write it wrong.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test may stop here")]

use proptest::prelude::*;

use super::*;

/// What is said of a file at its top level.
fn refused(yaml: &str, expected: &[&str]) {
    let why = Config::from_yaml(yaml).expect_err(yaml);
    for part in expected {
        assert!(why.contains(part), "{why:?} lacks {part:?}");
    }
    assert!(!why.contains('\n'), "{why:?} is more than one line");
}

/// What is said of the entry `p`, with the rest of the file fine.
fn entry_refused(entry: &str, expected: &[&str]) {
    let yaml = format!("plugins:\n  good: {{ source: file:a.wasm }}\n  p:\n{entry}\n");
    let config = Config::from_yaml(&yaml).unwrap_or_else(|why| panic!("{yaml}: {why}"));
    assert!(config.plugins[&PluginName::new("good").unwrap()].is_ok(), "one bad entry stops nobody else");
    let entry = config.plugins[&PluginName::new("p").unwrap()].clone();
    let why = entry.and_then(|entry| plugin_of(&config, &entry)).unwrap_err();
    for part in expected {
        assert!(why.contains(part), "{why:?} lacks {part:?}");
    }
}

fn plugin_of(config: &Config, entry: &PluginLayer) -> Result<Plugin, String> {
    resolve(&PluginName::new("p").unwrap(), None, &config.defaults, entry)
}

fn plugin(entry: &str) -> Plugin {
    let config = Config::from_yaml(&format!("plugins:\n  p: {entry}\n")).unwrap();
    plugin_of(&config, config.plugins[&PluginName::new("p").unwrap()].as_ref().unwrap()).unwrap()
}

#[test]
fn nothing_said_gives_the_documented_defaults() {
    let config = Config::from_yaml("").unwrap();
    assert_eq!(config, Config::default());
    assert_eq!(config.health.listen.to_string(), "0.0.0.0:8080");
    assert_eq!((config.health.stuck.as_secs(), config.drain.as_secs(), config.ready_timeout.as_secs()), (15, 25, 60));
    let plain = plugin("{ source: file:a.wasm }");
    assert_eq!(plain.trigger, Trigger::Manual);
    assert_eq!(plain.active_deadline, Some(Duration::from_secs(600)));
    assert_eq!((plain.refresh.as_secs(), plain.verify_keys.len(), config.verify_keys.len()), (60, 0, 0));
    assert_eq!((plain.backoff_limit, plain.limits.memory_bytes, plain.limits.weight), (3, 256 << 20, 100));
    let continuous = plugin("{ source: file:a.wasm, continuous: true }");
    assert_eq!((continuous.active_deadline, continuous.health.max_silence), (None, Some(Duration::from_secs(300))));
}

#[test]
fn layers_lie_over_one_another_and_a_trigger_replaces_a_trigger() {
    let config = Config::from_yaml(
        "defaults: { backoffLimit: 2, limits: { memory: 128Mi } }\n\
         plugins:\n  p: { source: file:a.wasm, every: 30s, limits: { weight: 200 } }\n",
    )
    .unwrap();
    let manifest =
        PluginLayer::from_json(r#"{"continuous":true,"backoffLimit":7,"limits":{"memory":"1Gi","logs":"2Mi"}}"#)
            .unwrap();
    let entry = config.plugins[&PluginName::new("p").unwrap()].clone().unwrap();
    let got = resolve(&PluginName::new("p").unwrap(), Some(&manifest), &config.defaults, &entry).unwrap();
    assert_eq!(got.trigger, Trigger::Every(Duration::from_secs(30)));
    assert_eq!((got.backoff_limit, got.limits.memory_bytes), (2, 128 << 20));
    assert_eq!((got.limits.logs_bytes, got.limits.weight), (2 << 20, 200));
    let explained = explain(Some(&manifest), &config.defaults, &entry);
    assert_eq!(explained["limits.logs"].1, Origin::Manifest);
    assert_eq!(explained["backoffLimit"].1, Origin::Defaults);
    assert_eq!(explained["every"].1, Origin::Entry);
    assert_eq!(explained["suspend"].1, Origin::BuiltIn);
}

#[test]
fn every_number_survives_helm() {
    for fuel in ["10000000000", "1e+10", "10G", "\"10G\""] {
        assert_eq!(
            plugin(&format!("{{ source: file:a, limits: {{ fuel: {fuel} }} }}")).limits.fuel,
            Some(10_000_000_000)
        );
    }
    assert_eq!(
        plugin("{ source: file:a, activeDeadlineSeconds: 1e+06 }").active_deadline,
        Some(Duration::from_secs(1_000_000))
    );
}

#[test]
fn an_unknown_key_names_the_nearest_known_one() {
    refused("pluginDir: /x\n", &["line 1", "`pluginDir`", "`pluginsDir`"]);
    refused("health:\n  listn: 0.0.0.0:1\n", &["line 2", "`health.listn`", "`health.listen`"]);
    refused("zzz: 1\n", &["`zzz`", "windlass schema"]);
    entry_refused("    evry: 5s", &["line 4", "plugins.p", "`evry`", "`every`"]);
    entry_refused("    memory: 5Mi", &["`memory`", "`limits.memory`"]);
}

#[test]
fn what_is_not_in_this_version_is_refused_by_name() {
    for key in keys::LATER_PLUGIN {
        entry_refused(&format!("    {key}: x"), &[key, "not in this version"]);
    }
    for key in keys::LATER_HOST {
        refused(&format!("{key}: x\n"), &[key, "not in this version"]);
    }
    entry_refused("    instance: Resident", &["instance", "Resident", "not in this version"]);
}

#[test]
fn spellings_that_two_yamls_read_differently_are_refused() {
    entry_refused("    suspend: no", &["`no`", "write false"]);
    entry_refused("    suspend: On", &["write true"]);
    entry_refused("    suspend: \"true\"", &["without quotes"]);
    entry_refused("    limits: { fuel: 1_000 }", &["write 1000"]);
    entry_refused("    backoffLimit: 010", &["write 10"]);
    entry_refused("    config: { country: no }", &["country", "write \"no\""]);
    entry_refused("    config: { version: 1.10 }", &["write \"1.10\""]);
    entry_refused("    args: [0100]", &["write \"0100\""]);
    assert_eq!(plugin("{ source: file:a, config: { n: 5, s: \"no\" } }").config["n"], "5");
}

#[test]
fn what_goes_together_is_checked() {
    entry_refused("    every: 5s\n    once: true", &["`every`", "`once`", "only one"]);
    entry_refused("    maxConcurrent: 3", &["concurrencyPolicy: Allow"]);
    entry_refused("    source: file:a\n    restartDelaySeconds: 3", &["continuous"]);
    entry_refused("    source: file:a\n    continuous: true\n    concurrencyPolicy: Replace", &["one run"]);
    entry_refused("    every: 5s", &["`source` is missing"]);
    entry_refused("    once: false", &["left out"]);
}

#[test]
fn values_out_of_bounds_say_the_bounds() {
    entry_refused("    every: 1ms", &["10ms"]);
    entry_refused("    every: 30", &["write 30s"]);
    entry_refused("    limits: { memory: 5Gi }", &["5Gi", "4Gi"]);
    entry_refused("    limits: { weight: 0 }", &["from 1 to 10000"]);
    entry_refused("    activeDeadlineSeconds: 5m", &["number: 300"]);
    refused("health: { listen: 8080 }\n", &["0.0.0.0:8080"]);
    refused("limits: { lanes: 0 }\n", &["from 1 to 256"]);
}

#[test]
fn the_form_of_the_file_is_checked() {
    refused("plugins:\n  a: {}\n  a: {}\n", &["line 3", "`a`", "line 2"]);
    refused("- a\n", &["map"]);
    refused("a: [\n", &["line"]);
    refused("x: &a 1\ny: *a\n", &["anchors"]);
    refused("a: 1\n---\nb: 2\n", &["second document"]);
    refused("plugins: 5\n", &["map of names"]);
    refused("defaults: { source: file:a }\n", &["own entry"]);
    refused(&format!("a: {}\n", "[".repeat(100)), &["line 1"]);
    let config = Config::from_yaml("plugins:\n  Bad_Name: { source: file:a }\n  windlass: {}\n").unwrap();
    assert_eq!(config.misnamed.len(), 2);
    assert!(
        config.misnamed[0].contains("Bad_Name") && config.misnamed[1].contains("host's own"),
        "{:?}",
        config.misnamed
    );
}

#[test]
fn the_schema_and_the_tables_know_the_same_keys() {
    let schema = json_schema();
    for key in keys::HOST {
        let pointer = format!("/properties/{}", key.path.replace('.', "/properties/"));
        assert!(schema.pointer(&pointer).is_some(), "{pointer}");
    }
    for key in keys::PLUGIN {
        let pointer = format!("/$defs/plugin/properties/{}", key.path.replace('.', "/properties/"));
        assert!(schema.pointer(&pointer).is_some(), "{pointer}");
    }
    for later in keys::LATER_PLUGIN {
        let refused = schema.pointer(&format!("/$defs/plugin/properties/{later}/not"));
        assert_eq!(refused, Some(&serde_json::json!({})), "{later}");
    }
}

#[test]
fn every_documented_key_is_taken_with_its_documented_default() {
    // Where a default is a value rather than words, the reader takes it.
    for key in keys::PLUGIN {
        let first = key.default.split(';').next().unwrap_or_default();
        if first == "none" || key.path == "maxConcurrent" || keys::OPERATORS.contains(&key.path) {
            continue;
        }
        let nested = key.path.split('.').rev().fold(first.to_owned(), |inner, name| format!("{{ {name}: {inner} }}"));
        let layer = PluginLayer::from_json(&nested).unwrap_or_else(|why| panic!("{nested}: {why}"));
        let explained = explain(None, &PluginLayer::default(), &PluginLayer::default());
        if let Some((value, _)) = explained.get(key.path) {
            assert_eq!(layer.said().next().unwrap().1, value, "{}", key.path);
        }
    }
}

#[test]
fn a_manifest_says_no_source_and_no_unknown_key() {
    assert!(PluginLayer::from_json(r#"{"source":"file:x"}"#).unwrap_err().contains("manifest"));
    let keys = PluginLayer::from_json(r#"{"verify":{"keys":["k"]}}"#).unwrap_err();
    assert!(keys.contains("verify.keys") && keys.contains("manifest"), "{keys}");
    assert!(PluginLayer::from_json(r#"{"refreshSeconds":1}"#).unwrap_err().contains("manifest"));
    assert!(PluginLayer::from_json(r#"{"evry":"5s"}"#).unwrap_err().starts_with("unknown key"));
}

proptest! {
    #[test]
    fn no_text_makes_it_panic(text in "[ -~\n\t]{0,200}") {
        let _ = Config::from_yaml(&text);
    }

    #[test]
    fn no_value_makes_it_panic(path in 0..keys::PLUGIN.len(), value in "[0-9a-zA-Z_.:+-]{0,20}") {
        let nested = keys::PLUGIN[path].path.split('.').rev().fold(value, |inner, name| format!("{{ {name}: {inner} }}"));
        let _ = PluginLayer::from_json(&nested);
    }

    #[test]
    fn what_is_shown_is_read_back(bytes in 1u64 << 20..1 << 40, ms in 10u64..1 << 34) {
        prop_assert_eq!(amount::whole(&amount::show_bytes(bytes)), Ok(bytes));
        let time = Duration::from_millis(ms);
        prop_assert_eq!(amount::duration(&amount::show_duration(time)), Ok(time));
    }
}
