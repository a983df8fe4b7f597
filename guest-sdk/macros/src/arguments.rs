//! The arguments of `#[job]`, checked, with errors at the token that is wrong.

#![allow(clippy::wildcard_enum_match_arm, reason = "Rust's syntax may grow; whatever is new is refused")]

use proc_macro2::{Span, TokenStream};
use serde_json::{Map, Value};
use syn::parse::Parser as _;
use syn::punctuated::Punctuated;
use syn::spanned::Spanned as _;
use syn::{Expr, ExprLit, Lit, Meta, Token};

/// What was said, in the words of the manifest.
#[derive(Default)]
pub(crate) struct Arguments {
    pub(crate) name: Option<String>,
    pub(crate) version: Option<String>,
    pub(crate) wants: Vec<String>,
    /// Keys of a plugin's entry, in camel case.
    pub(crate) plugin: Map<String, Value>,
}

/// What a key takes.
#[derive(Clone, Copy)]
enum Kind {
    Flag,
    Whole,
    Seconds,
    Duration,
    Amount,
    Word(&'static [&'static str]),
    Texts,
}

/// Every key but `name`, `version` and `wants`, as the macro spells it.
const KEYS: &[(&str, Kind)] = &[
    ("every", Kind::Duration),
    ("continuous", Kind::Flag),
    ("once", Kind::Flag),
    ("restart_delay_seconds", Kind::Seconds),
    ("concurrency_policy", Kind::Word(&["Allow", "Forbid", "Replace"])),
    ("max_concurrent", Kind::Whole),
    ("starting_deadline_seconds", Kind::Seconds),
    ("active_deadline_seconds", Kind::Seconds),
    ("attempt_deadline_seconds", Kind::Seconds),
    ("backoff_limit", Kind::Whole),
    ("tags", Kind::Texts),
    ("limits.memory", Kind::Amount),
    ("limits.cpu_seconds", Kind::Seconds),
    ("limits.fuel", Kind::Amount),
    ("limits.weight", Kind::Whole),
    ("limits.logs", Kind::Amount),
    ("health.failure_threshold", Kind::Whole),
    ("health.max_silence_seconds", Kind::Seconds),
    ("health.check_seconds", Kind::Seconds),
    ("health.check_timeout_seconds", Kind::Seconds),
];

const TRIGGERS: [&str; 3] = ["every", "continuous", "once"];

type Metas = Punctuated<Meta, Token![,]>;

pub(crate) fn parse(tokens: TokenStream) -> syn::Result<Arguments> {
    let metas = Metas::parse_terminated.parse2(tokens)?;
    let mut arguments = Arguments::default();
    let mut trigger: Option<String> = None;
    for meta in metas {
        let name = name_of(&meta)?;
        match name.as_str() {
            "name" => {
                let name = text(&meta)?;
                check_name(&name).map_err(|why| syn::Error::new(value_span(&meta), why))?;
                arguments.name = Some(name);
            }
            "version" => arguments.version = Some(text(&meta)?),
            "wants" => arguments.wants = texts(&meta)?,
            "limits" | "health" => {
                let inner = meta.require_list()?.parse_args_with(Metas::parse_terminated)?;
                let mut group = Map::new();
                for meta in inner {
                    let (key, value) = one(&meta, &format!("{name}."))?;
                    insert(&mut group, key, value, meta.span())?;
                }
                insert(&mut arguments.plugin, name, Value::Object(group), meta.span())?;
            }
            _ => {
                let (key, value) = one(&meta, "")?;
                if TRIGGERS.contains(&key.as_str())
                    && let Some(first) = trigger.replace(key.clone())
                {
                    let why = format!("`{first}` and `{key}`: only one thing can start a job");
                    return Err(syn::Error::new(meta.span(), why));
                }
                insert(&mut arguments.plugin, key, value, meta.span())?;
            }
        }
    }
    Ok(arguments)
}

fn insert(map: &mut Map<String, Value>, key: String, value: Value, span: Span) -> syn::Result<()> {
    match map.insert(key.clone(), value) {
        None => Ok(()),
        Some(_) => Err(syn::Error::new(span, format!("`{key}` stands here a second time"))),
    }
}

fn name_of(meta: &Meta) -> syn::Result<String> {
    match meta.path().get_ident() {
        Some(ident) => Ok(ident.to_string()),
        None => Err(syn::Error::new(meta.path().span(), "a key is one word")),
    }
}

fn one(meta: &Meta, prefix: &str) -> syn::Result<(String, Value)> {
    let name = name_of(meta)?;
    let path = format!("{prefix}{name}");
    let Some((_, kind)) = KEYS.iter().find(|(known, _)| *known == path) else {
        return Err(syn::Error::new(meta.path().span(), unknown(&path, prefix)));
    };
    Ok((camel(&name), value(meta, *kind)?))
}

fn unknown(path: &str, prefix: &str) -> String {
    let mut known: Vec<_> = KEYS
        .iter()
        .filter_map(|(key, _)| key.strip_prefix(prefix))
        .map(|key| key.split('.').next().unwrap_or(key))
        .chain(if prefix.is_empty() { &["name", "version", "wants"][..] } else { &[] }.iter().copied())
        .collect();
    known.sort_unstable();
    known.dedup();
    let hint = if KEYS.iter().any(|(key, _)| camel(key) == path) { " (keys are in snake case here)" } else { "" };
    format!("`{path}` is no key of a job{hint}; known are {}", known.join(", "))
}

fn value(meta: &Meta, kind: Kind) -> syn::Result<Value> {
    if let Kind::Flag = kind {
        return match meta {
            Meta::Path(_) => Ok(Value::Bool(true)),
            Meta::List(_) | Meta::NameValue(_) => {
                Err(syn::Error::new(meta.span(), format!("`{}` stands alone", name_of(meta)?)))
            }
        };
    }
    if let Kind::Texts = kind {
        return Ok(Value::from(texts(meta)?));
    }
    let literal = literal(meta)?;
    let wrong = |what: &str| syn::Error::new(literal.span(), format!("this must be {what}"));
    match (kind, &literal) {
        (Kind::Whole | Kind::Amount | Kind::Seconds, Lit::Int(number)) => {
            Ok(Value::from(number.base10_parse::<u64>()?))
        }
        (Kind::Whole, _) => Err(wrong("a whole number")),
        (Kind::Seconds, Lit::Float(number)) => Ok(Value::from(number.base10_parse::<f64>()?)),
        (Kind::Seconds, _) => Err(wrong("a number of seconds")),
        (Kind::Amount, Lit::Str(text)) if is_amount(&text.value()) => Ok(Value::from(text.value())),
        (Kind::Amount, _) => Err(wrong("an amount such as \"64Mi\" or 10_000")),
        (Kind::Duration, Lit::Str(text)) if is_duration(&text.value()) => Ok(Value::from(text.value())),
        (Kind::Duration, _) => Err(wrong("a duration such as \"30s\", \"5m\", \"1h30m\" or \"500ms\"")),
        (Kind::Word(words), Lit::Str(text)) if words.contains(&text.value().as_str()) => Ok(Value::from(text.value())),
        (Kind::Word(words), _) => Err(wrong(&format!("one of {}", words.join(", ")))),
        (Kind::Flag | Kind::Texts, _) => Err(wrong("something else")),
    }
}

fn literal(meta: &Meta) -> syn::Result<Lit> {
    match &meta.require_name_value()?.value {
        Expr::Lit(ExprLit { lit, .. }) => Ok(lit.clone()),
        other => Err(syn::Error::new(other.span(), "this must be a literal")),
    }
}

fn text(meta: &Meta) -> syn::Result<String> {
    match literal(meta)? {
        Lit::Str(text) => Ok(text.value()),
        other => Err(syn::Error::new(other.span(), "this must be text")),
    }
}

fn texts(meta: &Meta) -> syn::Result<Vec<String>> {
    let list = meta.require_list()?.parse_args_with(Punctuated::<syn::LitStr, Token![,]>::parse_terminated)?;
    Ok(list.iter().map(syn::LitStr::value).collect())
}

fn value_span(meta: &Meta) -> Span {
    match meta {
        Meta::NameValue(pair) => pair.value.span(),
        Meta::Path(_) | Meta::List(_) => meta.span(),
    }
}

fn check_name(name: &str) -> Result<(), String> {
    let inner = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit() || c == b'-';
    let fits = !name.is_empty() && name.len() <= 63 && name.bytes().all(inner);
    if fits && !name.starts_with('-') && !name.ends_with('-') && name != "windlass" {
        return Ok(());
    }
    Err("a plugin's name has 1 to 63 of a-z, 0-9 and `-` inside, and is not `windlass`".to_owned())
}

fn is_duration(text: &str) -> bool {
    let mut rest = text;
    let mut parts = 0;
    while !rest.is_empty() {
        let digits = rest.bytes().take_while(|c| c.is_ascii_digit() || *c == b'.').count();
        let (number, tail) = rest.split_at(digits);
        let unit = tail.bytes().take_while(u8::is_ascii_alphabetic).count();
        let (unit, tail) = tail.split_at(unit);
        if number.parse::<f64>().is_err() || !["ms", "s", "m", "h", "d"].contains(&unit) {
            return false;
        }
        rest = tail;
        parts += 1;
    }
    parts > 0
}

fn is_amount(text: &str) -> bool {
    let digits = text.bytes().take_while(|c| c.is_ascii_digit() || *c == b'.').count();
    let (number, suffix) = text.split_at(digits);
    number.parse::<f64>().is_ok() && ["", "k", "M", "G", "T", "Ki", "Mi", "Gi", "Ti"].contains(&suffix)
}

fn camel(name: &str) -> String {
    let mut words = name.split('_');
    let first = words.next().unwrap_or_default().to_owned();
    words.fold(first, |mut name, word| {
        let mut letters = word.chars();
        name.extend(letters.next().map(|letter| letter.to_ascii_uppercase()));
        name.push_str(letters.as_str());
        name
    })
}
