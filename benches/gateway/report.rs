//! Medians with their spread, the table, and the part of the documentation that is made from it.
//!
//! Invariant: a ratio is formed round by round, of two figures that were measured one after the other, or, where a queue
//! has to be filled in between, by the same program on the same machine.

use std::fmt::Write as _;
use std::path::Path;
use std::{fs, io};

use serde::{Deserialize, Serialize};

/// What several rounds gave.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(crate) struct Spread {
    pub(crate) median: f64,
    pub(crate) least: f64,
    pub(crate) most: f64,
}

impl Spread {
    /// Of at least one value.
    pub(crate) fn of(values: &[f64]) -> Self {
        let mut sorted = values.to_vec();
        sorted.sort_by(f64::total_cmp);
        let middle = sorted.len() / 2;
        let median = match sorted.len() % 2 {
            0 => f64::midpoint(sorted[middle - 1], sorted[middle]),
            _ => sorted[middle],
        };
        Self {
            median,
            least: sorted[0],
            most: sorted[sorted.len() - 1],
        }
    }

    fn text(&self, digits: usize) -> String {
        let Self { median, least, most } = self;
        match least == most {
            true => number(*median, digits),
            false => format!(
                "{} ({}–{})",
                number(*median, digits),
                number(*least, digits),
                number(*most, digits)
            ),
        }
    }
}

/// Thousands apart, so that six digits can be read.
fn number(value: f64, digits: usize) -> String {
    let text = format!("{:.digits$}", value.abs());
    let (whole, fraction) = text
        .split_once('.')
        .map_or((text.as_str(), None), |(w, f)| (w, Some(f)));
    let mut grouped = String::new();
    for (index, digit) in whole.chars().enumerate() {
        if index > 0 && (whole.len() - index).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    let sign = if value < 0.0 { "-" } else { "" };
    fraction.map_or_else(
        || format!("{sign}{grouped}"),
        |fraction| format!("{sign}{grouped}.{fraction}"),
    )
}

/// What a figure has to be.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Target {
    AtLeast(f64),
    AtMost(f64),
    /// Told, and not judged.
    None,
}

/// One line of the table.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Row {
    /// `FIGURE.NAME`. No other row has it, and it stays when the words change: the JSON is read by it.
    pub(crate) id: String,
    pub(crate) figure: String,
    pub(crate) unit: String,
    pub(crate) measured: Spread,
    pub(crate) rounds: Vec<f64>,
    /// What it is held against, measured in the same rounds.
    pub(crate) limit: Option<Limit>,
    /// Measured by limit, round by round.
    pub(crate) ratio: Option<Spread>,
    pub(crate) target: Target,
    pub(crate) met: Option<bool>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Limit {
    pub(crate) name: String,
    pub(crate) measured: Spread,
    pub(crate) rounds: Vec<f64>,
}

impl Row {
    /// A figure that is judged as it is.
    pub(crate) fn plain(id: &str, figure: impl Into<String>, unit: &str, values: &[f64], target: Target) -> Self {
        let measured = Spread::of(values);
        Self {
            id: id.to_owned(),
            figure: figure.into(),
            unit: unit.to_owned(),
            measured,
            rounds: values.to_vec(),
            limit: None,
            ratio: None,
            target,
            met: judged(measured.median, target),
        }
    }

    /// A figure that is judged by its ratio to a limit.
    pub(crate) fn ratio(
        id: &str,
        figure: impl Into<String>,
        unit: &str,
        values: &[f64],
        limit: (impl Into<String>, &[f64]),
        target: Target,
    ) -> Self {
        let ratios: Vec<_> = values.iter().zip(limit.1).map(|(value, limit)| value / limit).collect();
        let ratio = Spread::of(&ratios);
        Self {
            id: id.to_owned(),
            figure: figure.into(),
            unit: unit.to_owned(),
            measured: Spread::of(values),
            rounds: values.to_vec(),
            limit: Some(Limit {
                name: limit.0.into(),
                measured: Spread::of(limit.1),
                rounds: limit.1.to_vec(),
            }),
            ratio: Some(ratio),
            target,
            met: judged(ratio.median, target),
        }
    }

    fn cells(&self) -> [String; 6] {
        let digits = |value: f64| match value.abs() {
            value if value >= 100.0 => 0,
            value if value >= 10.0 => 1,
            _ => 2,
        };
        let (limit, limit_value) = match &self.limit {
            Some(Limit { name, measured, .. }) => (name.clone(), measured.text(digits(measured.median))),
            None => ("—".to_owned(), String::new()),
        };
        let target = match self.target {
            Target::AtLeast(value) => format!("≥ {value}"),
            Target::AtMost(value) => format!("≤ {value}"),
            Target::None => "—".to_owned(),
        };
        let verdict = match self.met {
            Some(true) => format!("{target} ✓"),
            Some(false) => format!("{target} ✗"),
            None => target,
        };
        [
            self.figure.clone(),
            format!("{} {}", self.measured.text(digits(self.measured.median)), self.unit),
            limit,
            limit_value,
            self.ratio.map_or_else(|| "—".to_owned(), |ratio| ratio.text(2)),
            verdict,
        ]
    }
}

fn judged(value: f64, target: Target) -> Option<bool> {
    match target {
        Target::AtLeast(least) => Some(value >= least),
        Target::AtMost(most) => Some(value <= most),
        Target::None => None,
    }
}

const HEAD: [&str; 6] = ["figure", "measured", "limit", "measured beside it", "ratio", "target"];

/// As Markdown.
pub(crate) fn table<'a>(rows: impl IntoIterator<Item = &'a Row>) -> String {
    let mut text = format!("| {} |\n|{}\n", HEAD.join(" | "), " --- |".repeat(HEAD.len()));
    for row in rows {
        // Writing to a string does not fail.
        writeln!(text, "| {} |", row.cells().join(" | ")).unwrap_or_default();
    }
    text
}

/// Puts `text` between the two marks `<!-- NAME -->` and `<!-- /NAME -->` of a file.
pub(crate) fn put_between(path: &Path, name: &str, text: &str) -> io::Result<()> {
    let document = fs::read_to_string(path)?;
    let (open, close) = (format!("<!-- {name} -->"), format!("<!-- /{name} -->"));
    let missing = || io::Error::other(format!("{}: no {open} … {close}", path.display()));
    let (before, rest) = document.split_once(&open).ok_or_else(missing)?;
    let (_, after) = rest.split_once(&close).ok_or_else(missing)?;
    fs::write(path, format!("{before}{open}\n{text}{close}{after}"))
}
