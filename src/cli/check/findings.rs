//! What was looked at and what was found: a line each, or JSON for programs.

use std::fmt::Display;

/// How good it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
enum Verdict {
    Good,
    /// Neither good nor bad.
    Note,
    /// Works, and may not be meant.
    Warning,
    Fault,
}

/// One thing that was looked at.
#[derive(Debug, serde::Serialize)]
struct Finding {
    verdict: Verdict,
    message: String,
}

/// All of them, in the order in which they were looked at. Each is printed at once, unless JSON is wanted.
#[derive(Debug)]
pub(super) struct Findings {
    found: Vec<Finding>,
    json: bool,
}

impl Findings {
    pub(super) fn new(json: bool) -> Self {
        Self {
            found: Vec::new(),
            json,
        }
    }

    pub(super) fn good(&mut self, what: impl Display) {
        self.add(Verdict::Good, what);
    }

    pub(super) fn note(&mut self, what: impl Display) {
        self.add(Verdict::Note, what);
    }

    pub(super) fn warn(&mut self, what: impl Display) {
        self.add(Verdict::Warning, what);
    }

    pub(super) fn bad(&mut self, what: impl Display) {
        self.add(Verdict::Fault, what);
    }

    /// A good line, or the fault.
    pub(super) fn either(&mut self, result: Result<impl Display, impl Display>) {
        match result {
            Ok(good) => self.good(good),
            Err(bad) => self.bad(bad),
        }
    }

    fn add(&mut self, verdict: Verdict, what: impl Display) {
        let message = what.to_string();
        if !self.json {
            let sign = match verdict {
                Verdict::Good => '✓',
                Verdict::Note => '·',
                Verdict::Warning => '!',
                Verdict::Fault => '✗',
            };
            say!("{sign} {message}");
        }
        self.found.push(Finding { verdict, message });
    }

    /// Ends with how many faults there are.
    pub(super) fn finish(self) -> usize {
        let faults = self
            .found
            .iter()
            .filter(|found| found.verdict == Verdict::Fault)
            .count();
        if self.json {
            let report = serde_json::json!({ "faults": faults, "findings": self.found });
            say!("{report:#}");
        }
        faults
    }
}
