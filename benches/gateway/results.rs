//! target/gateway.json: of each figure the rows of its last run, with when that was and of which commit.
//!
//! A run replaces the rows of the figures that it has measured, all of a figure's at once, and leaves the others.

use std::fmt::Write as _;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde::{Deserialize, Serialize};

use crate::report::{self, Row};

/// One start of the benchmark.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Run {
    date: String,
    commit: String,
}

impl Run {
    /// This one.
    pub(crate) fn now() -> Self {
        let described = Command::new("git")
            .args(["describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"])
            .current_dir(env!("CARGO_MANIFEST_DIR"))
            .output();
        let commit = described.ok().filter(|output| output.status.success());
        Self {
            date: chrono::Utc::now().format("%Y-%m-%d %H:%M UTC").to_string(),
            commit: commit.map_or_else(
                || "unknown".to_owned(),
                |output| String::from_utf8_lossy(&output.stdout).trim().to_owned(),
            ),
        }
    }
}

#[derive(Debug, Serialize, Deserialize)]
struct Kept {
    #[serde(flatten)]
    row: Row,
    #[serde(flatten)]
    run: Run,
}

impl Kept {
    fn figure(&self) -> &str {
        self.row
            .id
            .split_once('.')
            .map_or(self.row.id.as_str(), |(figure, _)| figure)
    }
}

/// The rows, in the order of the figures.
pub(crate) struct Results {
    path: PathBuf,
    figures: Vec<&'static str>,
    rows: Vec<Kept>,
}

impl Results {
    /// Those of earlier runs. An error says what to do about it.
    pub(crate) fn load(path: &Path, figures: Vec<&'static str>) -> Result<Self, String> {
        let rows = match fs::read_to_string(path) {
            Ok(text) => serde_json::from_str(&text).map_err(|error| error.to_string()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
            Err(error) => Err(error.to_string()),
        };
        let path = path.to_owned();
        let shown = path.display();
        let mut rows: Vec<Kept> =
            rows.map_err(|error| format!("{shown} has no rows of this benchmark ({error}); remove it: rm {shown}"))?;
        // What there is no figure for any more is not kept for ever.
        rows.retain(|kept| figures.contains(&kept.figure()));
        Ok(Self { path, figures, rows })
    }

    /// Writes what a figure has now.
    pub(crate) fn replace(&mut self, figure: &str, rows: Vec<Row>, run: &Run) -> io::Result<()> {
        self.rows.retain(|kept| kept.figure() != figure);
        self.rows
            .extend(rows.into_iter().map(|row| Kept { row, run: run.clone() }));
        let figures = &self.figures;
        self.rows
            .sort_by_key(|kept| figures.iter().position(|figure| *figure == kept.figure()));
        // Whole or not at all: the other figures' rows are in it.
        let new = self.path.with_extension("new");
        fs::write(&new, serde_json::to_string_pretty(&self.rows)?)?;
        fs::rename(new, &self.path)
    }

    /// Figures that there are no rows of.
    pub(crate) fn lacking(&self) -> Vec<&'static str> {
        let has = |figure: &&str| self.rows.iter().any(|kept| kept.figure() == *figure);
        self.figures.iter().copied().filter(|figure| !has(figure)).collect()
    }

    pub(crate) fn len(&self) -> usize {
        self.rows.len()
    }

    /// The table, and below it which rows are of which run, where they are of several.
    pub(crate) fn table(&self) -> String {
        let mut text = report::table(self.rows.iter().map(|kept| &kept.row));
        let mut runs: Vec<(&Run, Vec<String>, usize)> = Vec::new();
        for kept in &self.rows {
            let figure = format!("`{}`", kept.figure());
            match runs.iter_mut().find(|(run, ..)| **run == kept.run) {
                Some((_, figures, rows)) => {
                    *rows += 1;
                    if figures.last() != Some(&figure) {
                        figures.push(figure);
                    }
                }
                None => runs.push((&kept.run, vec![figure], 1)),
            }
        }
        if runs.len() > 1 {
            runs.sort_by_key(|(.., rows)| std::cmp::Reverse(*rows));
            let others = runs[1..].iter().map(|(run, figures, _)| {
                let (last, first) = figures.split_last().expect("a run is here because of a figure");
                let and = if first.is_empty() { "" } else { " and " };
                format!("{}{and}{last} on {} at {}", first.join(", "), run.date, run.commit)
            });
            let (others, most) = (others.collect::<Vec<_>>().join("; "), runs[0].0);
            // Writing to a string does not fail.
            writeln!(
                text,
                "\nMeasured on {} at {}, but for {others}.",
                most.date, most.commit
            )
            .unwrap_or_default();
        }
        text
    }
}
