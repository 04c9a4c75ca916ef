//! TOML with a memory: every value knows its line and its full key, and every mistake found in it is collected.
//!
//! Invariant: reading never stops at a mistake. A value that is wrong is reported once and read as absent, so that one
//! pass over a file finds everything that is wrong with it; and a key that nobody asked for is itself a mistake.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::fmt::Display;
use std::ops::{Range, RangeInclusive};
use std::time::Duration;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::checked::Mistake;
use super::nearest::nearest;
use super::units;

/// One file that is being read, and what has been found wrong with it so far.
pub(super) struct Document<'t> {
    text: &'t str,
    mistakes: RefCell<Vec<Mistake>>,
}

impl<'t> Document<'t> {
    pub(super) fn new(text: &'t str) -> Self {
        Self {
            text,
            mistakes: RefCell::default(),
        }
    }

    /// The file's top-level table. After syntax errors its content would be guesswork: they are reported alone.
    pub(super) fn parse(&self) -> Option<DeTable<'t>> {
        let (root, errors) = DeTable::parse_recoverable(self.text);
        let mut lines = BTreeSet::new();
        for error in &errors {
            let span = error.span().unwrap_or_default();
            let line = self.line_of(span.start);
            // One slip makes the parser stumble several times over the same line.
            if !lines.insert(line) {
                continue;
            }
            match error.message() {
                "duplicate key" => self.report(
                    line,
                    self.key_until(span),
                    "is there twice; remove one of the two".to_owned(),
                ),
                message => self.report(line, String::new(), format!("not TOML: {message}")),
            }
        }
        errors.is_empty().then(|| root.into_inner())
    }

    /// The key that ends with this span, with the table that it is in: for text that did not become a document.
    fn key_until(&self, span: Range<usize>) -> String {
        let above = self.text.get(..span.end).unwrap_or_default();
        let (above, line) = above.rsplit_once('\n').unwrap_or(("", above));
        let header = |line: &str| line.trim().trim_matches(['[', ']']).trim().to_owned();
        match line.trim() {
            line if line.starts_with('[') => header(line),
            // In an inline table: which one, the line says.
            line if line.contains('=') => self.text.get(span).unwrap_or_default().to_owned(),
            key => match above.lines().rev().find(|line| line.trim().starts_with('[')) {
                Some(table) => format!("{}.{key}", header(table)),
                None => key.to_owned(),
            },
        }
    }

    /// The table that holds everything.
    pub(super) fn root<'d>(&'d self, entries: &'d DeTable<'t>) -> Table<'d> {
        Table {
            document: self,
            key: String::new(),
            line: 1,
            entries: Some(entries),
            known: RefCell::default(),
        }
    }

    pub(super) fn report(&self, line: usize, key: String, message: String) {
        self.mistakes.borrow_mut().push(Mistake { line, key, message });
    }

    /// Everything found wrong, in the order of the file.
    pub(super) fn into_mistakes(self) -> Vec<Mistake> {
        let mut mistakes = self.mistakes.into_inner();
        mistakes.sort_by_key(|mistake| mistake.line);
        mistakes
    }

    fn line_of(&self, offset: usize) -> usize {
        1 + self.text.bytes().take(offset).filter(|byte| *byte == b'\n').count()
    }
}

/// A table of the file, or the empty one that an absent table is read as.
pub(super) struct Table<'d> {
    document: &'d Document<'d>,
    key: String,
    line: usize,
    entries: Option<&'d DeTable<'d>>,
    known: RefCell<Vec<&'static str>>,
}

impl<'d> Table<'d> {
    /// The value of a key, if it is there. Asking makes the key a known one.
    pub(super) fn field(&self, name: &'static str) -> Option<Field<'d>> {
        self.known.borrow_mut().push(name);
        let (key, value) = self.entries?.get_key_value(name)?;
        Some(self.at(key, value))
    }

    /// The value of a key that has to be there.
    pub(super) fn required(&self, name: &'static str, what: &str) -> Option<Field<'d>> {
        let field = self.field(name);
        if field.is_none() {
            let key = joined(&self.key, name);
            self.document.report(self.line, key, format!("is missing; {what}"));
        }
        field
    }

    /// A table under this one; absent, it is read as empty.
    pub(super) fn table(&self, name: &'static str) -> Table<'d> {
        let key = joined(&self.key, name);
        self.field(name).and_then(|field| field.table()).unwrap_or(Table {
            document: self.document,
            key,
            line: 1,
            entries: None,
            known: RefCell::default(),
        })
    }

    /// Every entry of a table whose keys are names of the user's choice.
    pub(super) fn entries(&self) -> impl Iterator<Item = (&'d str, Field<'d>)> + '_ {
        self.entries
            .into_iter()
            .flatten()
            .map(|(key, value)| (key.get_ref().as_ref(), self.at(key, value)))
    }

    /// Reports every key that was not asked for.
    pub(super) fn finish(&self) {
        let known = self.known.borrow();
        for (name, field) in self.entries().filter(|(name, _)| !known.contains(name)) {
            let hint = match nearest(name, known.iter().copied()) {
                Some(near) => format!("did you mean \"{near}\"?"),
                None => format!("known here: {}", known.join(", ")),
            };
            field.mistake(format!("unknown key; {hint}"));
        }
    }

    pub(super) fn mistake(&self, message: impl Display) {
        self.document.report(self.line, self.key.clone(), message.to_string());
    }

    fn at(&self, key: &'d Spanned<std::borrow::Cow<'d, str>>, value: &'d Spanned<DeValue<'d>>) -> Field<'d> {
        Field {
            document: self.document,
            key: joined(&self.key, key.get_ref()),
            line: self.document.line_of(key.span().start),
            value: value.get_ref(),
        }
    }
}

/// One value of the file.
pub(super) struct Field<'d> {
    document: &'d Document<'d>,
    key: String,
    line: usize,
    pub(super) value: &'d DeValue<'d>,
}

impl<'d> Field<'d> {
    /// Its place in the file, as `section.key`.
    pub(super) fn key(&self) -> &str {
        &self.key
    }

    pub(super) fn mistake(&self, message: impl Display) {
        self.document.report(self.line, self.key.clone(), message.to_string());
    }

    /// Reports the value as wrong, with what is allowed.
    pub(super) fn refuse(&self, why: impl Display) {
        self.mistake(format!("{} {why}", self.shown()));
    }

    /// The value as the user wrote it, near enough to be recognised.
    pub(super) fn shown(&self) -> String {
        match self.value {
            DeValue::String(text) => format!("\"{text}\""),
            DeValue::Integer(number) => number.to_string(),
            DeValue::Float(number) => number.to_string(),
            DeValue::Boolean(value) => value.to_string(),
            DeValue::Datetime(time) => time.to_string(),
            DeValue::Array(_) => "an array".to_owned(),
            DeValue::Table(_) => "a table".to_owned(),
        }
    }

    pub(super) fn table(&self) -> Option<Table<'d>> {
        let entries = self.value.as_table();
        if entries.is_none() {
            self.refuse("is not a table");
        }
        Some(Table {
            document: self.document,
            key: self.key.clone(),
            line: self.line,
            entries: Some(entries?),
            known: RefCell::default(),
        })
    }

    pub(super) fn string(&self) -> Option<&'d str> {
        let text = self.value.as_str();
        if text.is_none() {
            self.refuse("is not a string; put it in quotes");
        }
        text
    }

    /// A string with something in it.
    pub(super) fn text(&self) -> Option<&'d str> {
        let text = self.string()?;
        if text.is_empty() {
            self.refuse("is empty; write a value, or remove the key");
        }
        Some(text).filter(|text| !text.is_empty())
    }

    /// A string that must not turn up in a message.
    pub(super) fn secret(&self) -> Option<String> {
        let text = self.value.as_str();
        if text.is_none() {
            self.mistake("is not a string; put it in quotes");
        }
        text.map(str::to_owned)
    }

    pub(super) fn boolean(&self) -> Option<bool> {
        let value = self.value.as_bool();
        if value.is_none() {
            self.refuse("is not a boolean; write true or false");
        }
        value
    }

    pub(super) fn integer(&self, allowed: RangeInclusive<i64>) -> Option<i64> {
        let number = self.value.as_integer();
        let number = number.and_then(|number| i64::from_str_radix(number.as_str(), number.radix()).ok());
        let number = number.filter(|number| allowed.contains(number));
        if number.is_none() {
            let (low, high) = allowed.into_inner();
            self.refuse(format_args!(
                "is not allowed; write a whole number from {low} to {high}"
            ));
        }
        number
    }

    pub(super) fn duration(&self, allowed: RangeInclusive<Duration>) -> Option<Duration> {
        let duration = match self.value.as_str().map(units::duration) {
            Some(Ok(duration)) => duration,
            _ => {
                self.refuse("is not a duration; write a whole number and ms, s, m, h or d, for example \"10s\"");
                return None;
            }
        };
        if !allowed.contains(&duration) {
            let (low, high) = (
                units::show_duration(*allowed.start()),
                units::show_duration(*allowed.end()),
            );
            self.refuse(format_args!(
                "is not allowed; write something from \"{low}\" to \"{high}\""
            ));
        }
        Some(duration).filter(|duration| allowed.contains(duration))
    }

    /// A size in bytes.
    pub(super) fn size(&self, allowed: RangeInclusive<u64>) -> Option<u64> {
        let size = match self.value.as_str().map(units::size) {
            Some(Ok(size)) => size,
            _ => {
                self.refuse(
                    "is not a size; write a whole number and B, KB, MB, GB, KiB, MiB or GiB, for example \"64 MiB\"",
                );
                return None;
            }
        };
        if size < *allowed.start() {
            self.refuse(format_args!(
                "is too small; write at least \"{}\"",
                units::show_size(*allowed.start())
            ));
        } else if size > *allowed.end() {
            self.refuse(format_args!(
                "is too large; write at most \"{}\"",
                units::show_size(*allowed.end())
            ));
        }
        Some(size).filter(|size| allowed.contains(size))
    }

    /// One of a few words.
    pub(super) fn choice<T: Copy>(&self, choices: &[(&str, T)]) -> Option<T> {
        let text = self.string()?;
        let chosen = choices.iter().find(|(name, _)| *name == text).map(|(_, value)| *value);
        if chosen.is_none() {
            let names: Vec<String> = choices.iter().map(|(name, _)| format!("\"{name}\"")).collect();
            self.refuse(format_args!("is not known; write {}", names.join(" or ")));
        }
        chosen
    }

    /// A string, or an array of strings: each with its own place in the file.
    pub(super) fn strings(&self) -> Vec<(&'d str, Field<'d>)> {
        let elements = match self.value {
            DeValue::Array(elements) => elements
                .iter()
                .enumerate()
                .map(|(index, element)| Field {
                    document: self.document,
                    key: format!("{}[{index}]", self.key),
                    line: self.document.line_of(element.span().start),
                    value: element.get_ref(),
                })
                .collect(),
            DeValue::String(_) => vec![Field {
                key: self.key.clone(),
                ..*self
            }],
            _ => {
                self.refuse("is not a string or an array of strings");
                Vec::new()
            }
        };
        elements
            .into_iter()
            .filter_map(|field| Some((field.text()?, field)))
            .collect()
    }

    pub(super) fn is_empty_list(&self) -> bool {
        matches!(self.value, DeValue::Array(elements) if elements.is_empty())
    }
}

/// A full key, quoted where TOML would have it quoted.
fn joined(table: &str, name: &str) -> String {
    let bare = !name.is_empty()
        && name
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-'));
    let name = if bare { name.to_owned() } else { format!("{name:?}") };
    if table.is_empty() {
        name
    } else {
        format!("{table}.{name}")
    }
}
