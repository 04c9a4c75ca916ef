//! The configuration as it takes shape, and its writing as TOML.
//!
//! Invariant: what [`Draft::settle`] gives is accepted by [`config::parse`]. A value that the parser refuses is
//! replaced by one that it takes, or left out, and named with the parser's own reason: the rules are in one place.

use std::collections::BTreeSet;
use std::fmt::Write;
use std::path::Path;

use super::{ImportError, ImportFailed};
use crate::config::{self, ConfigError};

const WIDTH: usize = 118;

/// What has become of the file so far.
#[derive(Default)]
pub(super) struct Draft {
    /// In the order of the keys, each once.
    lost: BTreeSet<(String, String)>,
    same: Vec<(String, String)>,
    sections: Vec<Section>,
}

/// A table of the configuration.
pub(super) struct Section {
    header: String,
    lines: Vec<Line>,
}

enum Line {
    Comment(String),
    /// A key that is not set, with its default.
    Unset(String),
    Entry(Entry),
}

/// A key with its value.
pub(super) struct Entry {
    key: String,
    /// As TOML; none when it was refused.
    value: Option<String>,
    fallback: Option<String>,
    /// Which keys of the file it was made from.
    from: String,
}

/// A string as TOML.
pub(super) fn text(text: &str) -> String {
    let quoted = serde_json::Value::from(text).to_string();
    // The escapes of JSON are TOML's too, but TOML wants one more character escaped.
    quoted.replace('\u{7f}', "\\u007F")
}

/// An array of strings as TOML.
pub(super) fn list(texts: &[&str]) -> String {
    let texts: Vec<String> = texts.iter().map(|one| text(one)).collect();
    format!("[{}]", texts.join(", "))
}

fn key(name: &str) -> String {
    let bare = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-');
    match !name.is_empty() && name.bytes().all(bare) {
        true => name.to_owned(),
        false => text(name),
    }
}

impl Entry {
    /// A value, in TOML, that was made from these keys of the file.
    pub(super) fn new(key: &str, value: impl Into<String>, from: impl Into<String>) -> Self {
        Self {
            key: key.to_owned(),
            value: Some(value.into()),
            fallback: None,
            from: from.into(),
        }
    }

    /// What is written instead if the parser refuses the value: for keys that have to be there.
    pub(super) fn or(mut self, fallback: &str) -> Self {
        self.fallback = Some(text(fallback));
        self
    }
}

impl Section {
    pub(super) fn new(header: &str) -> Self {
        Self {
            header: header.to_owned(),
            lines: Vec::new(),
        }
    }

    pub(super) fn comment(&mut self, text: impl Into<String>) {
        self.lines.push(Line::Comment(text.into()));
    }

    /// A key that may be set, as a comment.
    pub(super) fn unset(&mut self, line: &str) {
        self.lines.push(Line::Unset(line.to_owned()));
    }

    pub(super) fn entry(&mut self, entry: Entry) {
        self.lines.push(Line::Entry(entry));
    }
}

impl Draft {
    /// Something that is not carried over, and what to do instead.
    pub(super) fn lost(&mut self, key: impl Into<String>, why: impl Into<String>) {
        self.lost.insert((key.into(), why.into()));
    }

    /// Something for which there is nothing to write, because the gateway is so anyway.
    pub(super) fn same(&mut self, key: impl Into<String>, why: impl Into<String>) {
        self.same.push((key.into(), why.into()));
    }

    pub(super) fn section(&mut self, section: Section) {
        self.sections.push(section);
    }

    /// The text, and each thing that was not carried over.
    pub(super) fn settle(mut self, name: &str) -> Result<(String, Vec<String>), ImportFailed> {
        // Each round refuses a value for good, or its replacement: there are only so many.
        loop {
            let (text, entries) = self.write(name);
            let mistakes = match config::parse(&text, Path::new("config.toml")) {
                Ok(_) => return Ok((text, self.lost_lines())),
                Err(ConfigError::Invalid { mistakes, .. }) => mistakes,
                Err(error @ ConfigError::Read { .. }) => {
                    return Err(self.failed(ImportError::Refused(error.to_string())));
                }
            };
            let mut mended = false;
            for mistake in &mistakes {
                if let Some(Some(place)) = entries.get(mistake.line - 1) {
                    self.refuse(*place, &mistake.message);
                    mended = true;
                }
            }
            if !mended {
                let lines: Vec<String> = mistakes
                    .iter()
                    .map(|mistake| format!("{}: {}", mistake.key, mistake.message))
                    .collect();
                return Err(self.failed(ImportError::Refused(lines.join("\n"))));
            }
        }
    }

    /// That nothing comes of it.
    pub(super) fn failed(&self, error: ImportError) -> ImportFailed {
        ImportFailed {
            lost: self.lost_lines(),
            error,
        }
    }

    fn lost_lines(&self) -> Vec<String> {
        self.lost.iter().map(shown).collect()
    }

    fn refuse(&mut self, (section, line): (usize, usize), why: &str) {
        let Some(Line::Entry(entry)) = self.sections[section].lines.get_mut(line) else {
            return;
        };
        let from = entry.from.clone();
        entry.value = entry.fallback.take();
        let instead = match &entry.value {
            Some(value) => format!(" ({} = {value} stands in its place)", entry.key),
            None => " (left out)".to_owned(),
        };
        self.lost(from, format!("{why}{instead}"));
    }

    /// The text, and which entry is in each line.
    fn write(&self, name: &str) -> (String, Vec<Option<(usize, usize)>>) {
        let mut page = Page::default();
        page.comment(&format!(
            "Made from {name} by `waystation import-config`. Every key is in config.toml.example; `waystation check` \
             says what is wrong."
        ));
        page.list("Not carried over:", &self.lost);
        page.list("Nothing to write for:", &self.same);
        for (at, section) in self.sections.iter().enumerate() {
            page.line("");
            page.line(&format!("[{}]", section.header));
            for (line, content) in section.lines.iter().enumerate() {
                match content {
                    Line::Comment(text) => page.comment(text),
                    Line::Unset(line) => page.line(&format!("#{line}")),
                    Line::Entry(Entry { value: None, .. }) => {}
                    Line::Entry(Entry {
                        key: name, value, from, ..
                    }) => {
                        let value = value.as_deref().unwrap_or_default();
                        let origin = match from == name || from.ends_with(&format!(".{name}")) {
                            true => String::new(),
                            false => format!(" # {}", plain(from)),
                        };
                        page.put(&format!("{} = {value}{origin}", key(name)), Some((at, line)));
                    }
                }
            }
        }
        (page.text, page.entries)
    }
}

fn shown((key, why): &(String, String)) -> String {
    plain(&format!("{key}: {why}"))
}

/// Without what cannot be in a comment or on a terminal.
fn plain(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    for c in text.chars() {
        match c.is_control() {
            true => plain.extend(c.escape_default()),
            false => plain.push(c),
        }
    }
    plain
}

#[derive(Default)]
struct Page {
    text: String,
    entries: Vec<Option<(usize, usize)>>,
}

impl Page {
    fn put(&mut self, line: &str, entry: Option<(usize, usize)>) {
        self.text.push_str(line);
        self.text.push('\n');
        self.entries.push(entry);
    }

    fn line(&mut self, line: &str) {
        self.put(line, None);
    }

    fn comment(&mut self, text: &str) {
        self.wrapped("# ", "# ", text);
    }

    fn list<'i>(&mut self, head: &str, items: impl IntoIterator<Item = &'i (String, String)>) {
        let mut items = items.into_iter().peekable();
        if items.peek().is_none() {
            return;
        }
        self.line("#");
        self.comment(head);
        for item in items {
            self.wrapped("# - ", "#   ", &shown(item));
        }
    }

    fn wrapped(&mut self, first: &str, rest: &str, text: &str) {
        let text = plain(text);
        let mut line = first.to_owned();
        let mut empty = true;
        for word in text.split(' ') {
            if !empty && line.chars().count() + 1 + word.chars().count() > WIDTH {
                self.line(&line);
                line = rest.to_owned();
                empty = true;
            }
            let space = if empty { "" } else { " " };
            write!(line, "{space}{word}").expect("writing to a string does not fail");
            empty = false;
        }
        self.line(&line);
    }
}
