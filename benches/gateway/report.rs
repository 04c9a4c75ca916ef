//! Medians with their spread, the table, the JSON beside it, and the part of the documentation that is made from it.
//!
//! Invariant: a ratio is formed round by round, of two figures that were measured one after the other, or, where a queue
//! has to be filled in between, by the same program on the same machine.

use std::fmt::Write as _;
use std::path::Path;
use std::{fs, io};

use serde::Serialize;

/// What several rounds gave.
#[derive(Debug, Clone, Copy, Serialize)]
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
#[derive(Debug, Clone, Copy, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Target {
    AtLeast(f64),
    AtMost(f64),
    /// Told, and not judged.
    None,
}

/// One line of the table.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Row {
    pub(crate) figure: String,
    pub(crate) unit: &'static str,
    pub(crate) measured: Spread,
    /// What it is held against, measured in the same rounds.
    pub(crate) limit: Option<(String, Spread)>,
    /// Measured by limit, round by round.
    pub(crate) ratio: Option<Spread>,
    pub(crate) target: Target,
    pub(crate) met: Option<bool>,
}

impl Row {
    /// A figure that is judged as it is.
    pub(crate) fn plain(figure: impl Into<String>, unit: &'static str, values: &[f64], target: Target) -> Self {
        let measured = Spread::of(values);
        Self {
            figure: figure.into(),
            unit,
            measured,
            limit: None,
            ratio: None,
            target,
            met: judged(measured.median, target),
        }
    }

    /// A figure that is judged by its ratio to a limit.
    pub(crate) fn ratio(
        figure: impl Into<String>,
        unit: &'static str,
        values: &[f64],
        limit: (impl Into<String>, &[f64]),
        target: Target,
    ) -> Self {
        let ratios: Vec<_> = values.iter().zip(limit.1).map(|(value, limit)| value / limit).collect();
        let ratio = Spread::of(&ratios);
        Self {
            figure: figure.into(),
            unit,
            measured: Spread::of(values),
            limit: Some((limit.0.into(), Spread::of(limit.1))),
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
            Some((name, spread)) => (name.clone(), spread.text(digits(spread.median))),
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
pub(crate) fn table(rows: &[Row]) -> String {
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
