//! YAML as a tree that remembers where each thing stood and how it was written.
//!
//! Configuration passes through tools that read YAML 1.1 and tools that read YAML 1.2. What the two read differently must not be
//! guessed at, so scalars stay as they were written until a key says what they should be.

#![allow(clippy::wildcard_enum_match_arm, reason = "the parser's events may grow; whatever is new is refused")]

use granit_parser::{Event, Parser, ScalarStyle};

/// More than any configuration needs, and less than hurts.
const MOST_BYTES: usize = 1 << 20;
const MOST_DEPTH: usize = 32;

/// A node and the line it begins on, counted from 1.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Node {
    pub(super) line: usize,
    pub(super) content: Content,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Content {
    /// Nothing, `~` or `null`, not in quotes.
    Null,
    /// A scalar without quotes: what it means depends on who reads it.
    Plain(String),
    /// A scalar in quotes, or a block: text and nothing else.
    Quoted(String),
    List(Vec<Node>),
    /// In the order of the file; no key stands twice.
    Map(Vec<(Key, Node)>),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Key {
    pub(super) line: usize,
    pub(super) name: String,
}

impl Node {
    /// What kind of thing it is, for messages.
    pub(super) fn kind(&self) -> &'static str {
        match &self.content {
            Content::Null => "nothing",
            Content::Plain(_) | Content::Quoted(_) => "a single value",
            Content::List(_) => "a list",
            Content::Map(_) => "a map",
        }
    }
}

/// Reads one document. An empty one is an empty map.
pub(super) fn parse(text: &str) -> Result<Node, String> {
    if text.len() > MOST_BYTES {
        return Err(format!("it has {} KiB; the most is {} KiB", text.len() >> 10, MOST_BYTES >> 10));
    }
    let mut reader = Reader { parser: Parser::new_from_str(text) };
    let mut document = None;
    loop {
        let (event, line) = reader.next()?;
        match event {
            Event::StreamEnd => break,
            Event::StreamStart | Event::DocumentStart(..) | Event::DocumentEnd => {}
            event if document.is_none() => document = Some(reader.node(event, line, 0)?),
            _ => return Err(format!("line {line}: a second document begins; one file holds one")),
        }
    }
    Ok(match document {
        None | Some(Node { content: Content::Null, .. }) => Node { line: 1, content: Content::Map(Vec::new()) },
        Some(node) => node,
    })
}

struct Reader<'a> {
    parser: Parser<'a, granit_parser::StrInput<'a>>,
}

impl<'a> Reader<'a> {
    fn next(&mut self) -> Result<(Event<'a>, usize), String> {
        match self.parser.next_event() {
            Some(Ok((event, span))) => Ok((event, span.start.line())),
            Some(Err(error)) => Err(format!("line {}: {}", error.marker().line(), error.info())),
            None => Ok((Event::StreamEnd, 0)),
        }
    }

    fn node(&mut self, event: Event<'a>, line: usize, depth: usize) -> Result<Node, String> {
        if depth > MOST_DEPTH {
            return Err(format!("line {line}: nested deeper than {MOST_DEPTH}"));
        }
        let content = match event {
            Event::Scalar(_, _, _, Some(tag)) => {
                return Err(format!("line {line}: tags ({tag}) are not taken; write the value"));
            }
            Event::Scalar(_, _, anchor, None) if anchor != 0 => return Err(no_anchors(line)),
            Event::Scalar(text, style, _, None) => match (style, &*text) {
                (ScalarStyle::Plain, "" | "~" | "null" | "Null" | "NULL") => Content::Null,
                (ScalarStyle::Plain, _) => Content::Plain(text.into_owned()),
                _ => Content::Quoted(text.into_owned()),
            },
            Event::SequenceStart(_, anchor, tag) => {
                refuse_extras(line, anchor, tag.is_some())?;
                let mut items = Vec::new();
                loop {
                    let (event, line) = self.next()?;
                    if matches!(event, Event::SequenceEnd) {
                        break Content::List(items);
                    }
                    items.push(self.node(event, line, depth + 1)?);
                }
            }
            Event::MappingStart(_, anchor, tag) => {
                refuse_extras(line, anchor, tag.is_some())?;
                Content::Map(self.entries(depth)?)
            }
            Event::Alias(_) | Event::UnresolvedAlias(_) => return Err(no_anchors(line)),
            _ => return Err(format!("line {line}: a value is missing")),
        };
        Ok(Node { line, content })
    }

    fn entries(&mut self, depth: usize) -> Result<Vec<(Key, Node)>, String> {
        let mut entries: Vec<(Key, Node)> = Vec::new();
        let mut seen = std::collections::HashMap::new();
        loop {
            let (event, line) = self.next()?;
            let name = match event {
                Event::MappingEnd => return Ok(entries),
                Event::Scalar(text, ..) => text.into_owned(),
                _ => return Err(format!("line {line}: a key must be a single word")),
            };
            if name == "<<" {
                return Err(no_anchors(line));
            }
            if let Some(first) = seen.insert(name.clone(), line) {
                return Err(format!("line {line}: `{name}` stands here a second time; the first is on line {first}"));
            }
            let (event, value_line) = self.next()?;
            let value = self.node(event, value_line, depth + 1)?;
            entries.push((Key { line, name }, value));
        }
    }
}

fn refuse_extras(line: usize, anchor: usize, tagged: bool) -> Result<(), String> {
    match (anchor, tagged) {
        (0, false) => Ok(()),
        (0, true) => Err(format!("line {line}: tags are not taken; write the value")),
        _ => Err(no_anchors(line)),
    }
}

fn no_anchors(line: usize) -> String {
    format!("line {line}: anchors and aliases are not taken; say it in `defaults`, or write it out")
}
