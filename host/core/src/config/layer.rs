//! What one source says: keys and values that were checked one by one, and nothing filled in yet.

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

use super::amount;
use super::keys::{Key, Kind, TRIGGERS};
use super::yaml::{Content, Node};

/// A checked value.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// `Kind::Bool`, `Kind::True`
    Bool(bool),
    /// `Kind::Whole`
    Whole(u64),
    /// `Kind::Bytes`
    Bytes(u64),
    /// `Kind::Seconds`
    Seconds(Duration),
    /// `Kind::Duration`
    Duration(Duration),
    /// `Kind::Text`, `Kind::OneOf`
    Text(String),
    /// `Kind::Address`
    Address(SocketAddr),
    /// `Kind::Texts`
    Texts(Vec<String>),
    /// `Kind::TextMap`
    TextMap(BTreeMap<String, String>),
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Value::Bool(value) => write!(f, "{value}"),
            Value::Whole(value) => write!(f, "{value}"),
            Value::Bytes(value) => f.write_str(&amount::show_bytes(*value)),
            Value::Seconds(value) => write!(f, "{}", value.as_secs_f64()),
            Value::Duration(value) => f.write_str(&amount::show_duration(*value)),
            Value::Text(value) => f.write_str(value),
            Value::Address(value) => write!(f, "{value}"),
            Value::Texts(values) => write!(f, "[{}]", values.join(", ")),
            Value::TextMap(values) => {
                let pairs: Vec<_> = values.iter().map(|(name, value)| format!("{name}: {value}")).collect();
                write!(f, "{{{}}}", pairs.join(", "))
            }
        }
    }
}

/// Values by the path of their key.
pub(super) type Values = BTreeMap<&'static str, Value>;

/// Checks a map against a table of keys. Keys in `later` and words behind the bar are refused by name.
pub(super) fn read(node: &Node, table: &'static [Key], later: &[&str]) -> Result<Values, String> {
    let mut values = Values::new();
    read_group(node, "", table, later, &mut values)?;
    let triggers: Vec<_> = TRIGGERS.iter().filter(|name| values.contains_key(**name)).collect();
    if let [first, second, ..] = triggers.as_slice() {
        return Err(format!("line {}: `{first}` and `{second}`: only one thing can start a plugin", node.line));
    }
    Ok(values)
}

fn read_group(
    node: &Node,
    prefix: &str,
    table: &'static [Key],
    later: &[&str],
    values: &mut Values,
) -> Result<(), String> {
    let Content::Map(entries) = &node.content else {
        let name = if prefix.is_empty() { "it" } else { prefix.trim_end_matches('.') };
        return Err(format!("line {}: {name} must be a map of keys, and is {}", node.line, node.kind()));
    };
    for (key, value) in entries {
        let path = format!("{prefix}{}", key.name);
        if later.contains(&path.as_str()) {
            return Err(format!("line {}: `{path}` is not in this version", key.line));
        }
        if let Some(known) = table.iter().find(|known| known.path == path) {
            let value = read_value(value, known.kind).map_err(|why| format!("line {}: {path}: {why}", key.line))?;
            values.insert(known.path, value);
            continue;
        }
        let group = format!("{path}.");
        if table.iter().any(|known| known.path.starts_with(&group)) {
            // An empty group is what a commented-out block leaves behind.
            if value.content != Content::Null {
                read_group(value, &group, table, later, values)?;
            }
            continue;
        }
        return Err(format!("line {}: {}", key.line, unknown(&path, table.iter().map(|known| known.path))));
    }
    Ok(())
}

/// Says that a key is unknown, and which known one is nearest.
pub(super) fn unknown<'a>(path: &str, known: impl Iterator<Item = &'a str>) -> String {
    let short: String = path.chars().take(80).collect();
    let names = known.flat_map(|path| [Some(path), path.split_once('.').map(|(group, _)| group)]).flatten();
    let last = |path: &str| path.rsplit('.').next().unwrap_or_default().to_lowercase();
    let nearest = names
        .map(|name| {
            let whole = strsim::jaro_winkler(&name.to_lowercase(), &short.to_lowercase());
            // A key in the wrong group is nearest to the key of the same name.
            (whole.max(strsim::jaro_winkler(&last(name), &last(&short)) - 0.01), name)
        })
        .max_by(|a, b| a.0.total_cmp(&b.0));
    match nearest {
        Some((likeness, name)) if likeness > 0.75 => format!("unknown key `{short}`; did you mean `{name}`?"),
        _ => format!("unknown key `{short}`; `windlass schema` lists the known ones"),
    }
}

fn read_value(node: &Node, kind: Kind) -> Result<Value, String> {
    match kind {
        Kind::Bool => boolean(node).map(Value::Bool),
        Kind::True => match boolean(node)? {
            true => Ok(Value::Bool(true)),
            false => Err("it is `true` or left out".to_owned()),
        },
        Kind::Whole(least, most) => {
            let number = amount::whole(scalar(node, "a number")?)?;
            within(number, least, most, |number| number.to_string()).map(Value::Whole)
        }
        Kind::Bytes(least, most) => {
            let bytes = amount::whole(scalar(node, "an amount such as 64Mi")?)?;
            within(bytes, least, most, amount::show_bytes).map(Value::Bytes)
        }
        Kind::Seconds(least, most) => {
            let time = amount::seconds(scalar(node, "a number of seconds")?)?;
            let seconds = within(time.as_secs_f64(), least, most, |seconds| seconds.to_string());
            seconds.map(|_| Value::Seconds(time))
        }
        Kind::Duration(least, most) => {
            let time = amount::duration(scalar(node, "a duration such as 30s")?)?;
            let show =
                |seconds: f64| Duration::try_from_secs_f64(seconds).map(amount::show_duration).unwrap_or_default();
            within(time.as_secs_f64(), least, most, show).map(|_| Value::Duration(time))
        }
        Kind::Text => text(node).map(Value::Text),
        Kind::OneOf(words, later) => {
            let word = scalar(node, "a word")?;
            match words.iter().find(|known| **known == word) {
                Some(word) => Ok(Value::Text((*word).to_owned())),
                None if later.contains(&word) => Err(format!("`{word}` is not in this version")),
                None => Err(format!("`{word}`: it must be {}", words.join(" or "))),
            }
        }
        Kind::Address => {
            let address = scalar(node, "an address")?;
            address
                .parse()
                .map(Value::Address)
                .map_err(|_| format!("`{address}` is no address: write it like 0.0.0.0:8080"))
        }
        Kind::Texts => match &node.content {
            Content::List(items) => items.iter().map(text).collect::<Result<_, _>>().map(Value::Texts),
            Content::Null => Ok(Value::Texts(Vec::new())),
            Content::Plain(_) | Content::Quoted(_) | Content::Map(_) => {
                Err(format!("it must be a list, and is {}", node.kind()))
            }
        },
        Kind::TextMap => match &node.content {
            Content::Map(entries) => entries
                .iter()
                .map(|(key, value)| Ok((key.name.clone(), text(value).map_err(|why| format!("{}: {why}", key.name))?)))
                .collect::<Result<_, String>>()
                .map(Value::TextMap),
            Content::Null => Ok(Value::TextMap(BTreeMap::new())),
            Content::Plain(_) | Content::Quoted(_) | Content::List(_) => {
                Err(format!("it must be a map of names to texts, and is {}", node.kind()))
            }
        },
    }
}

fn within<T: PartialOrd + Copy>(value: T, least: T, most: T, show: impl Fn(T) -> String) -> Result<T, String> {
    if value < least || value > most {
        return Err(format!("{} is out of bounds: from {} to {}", show(value), show(least), show(most)));
    }
    Ok(value)
}

fn scalar<'a>(node: &'a Node, wanted: &str) -> Result<&'a str, String> {
    match &node.content {
        Content::Plain(text) | Content::Quoted(text) => Ok(text),
        Content::Null | Content::List(_) | Content::Map(_) => {
            Err(format!("it must be {wanted}, and is {}", node.kind()))
        }
    }
}

fn boolean(node: &Node) -> Result<bool, String> {
    match &node.content {
        Content::Plain(text) => match text.as_str() {
            "true" => Ok(true),
            "false" => Ok(false),
            other => match as_yaml_1_1_bool(other) {
                Some(value) => {
                    Err(format!("`{other}` is true or false to some tools and text to others: write {value}"))
                }
                None => Err(format!("`{other}` is neither true nor false")),
            },
        },
        Content::Quoted(text) => Err(format!("\"{text}\" is text: write true or false, without quotes")),
        Content::Null | Content::List(_) | Content::Map(_) => {
            Err(format!("it must be true or false, and is {}", node.kind()))
        }
    }
}

/// Text as every YAML reads it. What is written without quotes and may mean something else is refused.
fn text(node: &Node) -> Result<String, String> {
    match &node.content {
        Content::Quoted(text) => Ok(text.clone()),
        Content::Plain(text) => {
            let is_safe_whole =
                text.len() <= 15 && text.parse::<u64>().is_ok() && (text.len() == 1 || !text.starts_with('0'));
            let number_like = text.replace(['_', ':'], "").parse::<f64>().is_ok();
            if as_yaml_1_1_bool(text).is_some() || (number_like && !is_safe_whole) {
                return Err(format!("{text} means different things to different tools: write \"{text}\""));
            }
            Ok(text.clone())
        }
        Content::Null => Err("it must be text, and is nothing: write \"\" for an empty one".to_owned()),
        Content::List(_) | Content::Map(_) => Err(format!("it must be text, and is {}", node.kind())),
    }
}

/// What YAML 1.1 takes for a truth value and YAML 1.2 for text, and what both do in odd spellings.
fn as_yaml_1_1_bool(text: &str) -> Option<bool> {
    match text.to_ascii_lowercase().as_str() {
        "yes" | "y" | "on" | "true" => Some(true),
        "no" | "n" | "off" | "false" => Some(false),
        _ => None,
    }
}
