//! What the demo shows while it runs: a small table that is drawn over itself on a terminal, plain lines elsewhere.

use std::io::{IsTerminal, Write};
use std::time::Duration;

/// Where the play is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    Online,
    Outage,
    Draining,
    Drained,
}

impl Phase {
    fn words(self) -> &'static str {
        match self {
            Self::Online => "online",
            Self::Outage => "AWAY",
            Self::Draining => "back, draining",
            Self::Drained => "back, drained",
        }
    }
}

/// The figures of one moment.
pub(super) struct Row {
    pub at: Duration,
    pub phase: Phase,
    pub vehicles: u64,
    pub sent: u64,
    pub acked: u64,
    pub backlog: u64,
    pub delivered: u64,
}

pub(super) struct Screen {
    silent: bool,
    terminal: bool,
    drawn: bool,
    last_line: Option<u64>,
    last_phase: Option<Phase>,
}

impl Screen {
    pub(super) fn new(silent: bool) -> Self {
        Self {
            silent,
            terminal: std::io::stdout().is_terminal(),
            drawn: false,
            last_line: None,
            last_phase: None,
        }
    }

    pub(super) fn show(&mut self, row: &Row) {
        match (self.silent, self.terminal) {
            (true, _) => {}
            (false, true) => self.draw(row),
            (false, false) => self.print(row),
        }
    }

    fn draw(&mut self, row: &Row) {
        let table = format!(
            "waystation demo            {:>6.1} s\x1b[K\n  upstream       {:>16}\x1b[K\n  vehicles       {:>16}\x1b[K\n  records sent   {:>16}\x1b[K\n  acknowledged   {:>16}\x1b[K\n  backlog        {:>16}\x1b[K\n  delivered      {:>16}\x1b[K\n",
            row.at.as_secs_f64(),
            row.phase.words(),
            row.vehicles,
            row.sent,
            row.acked,
            row.backlog,
            row.delivered
        );
        let up = if std::mem::replace(&mut self.drawn, true) {
            "\x1b[7A"
        } else {
            ""
        };
        let mut out = std::io::stdout().lock();
        // A terminal that went away ends the show, not the demo.
        self.silent = write!(out, "{up}{table}").and_then(|()| out.flush()).is_err();
    }

    fn print(&mut self, row: &Row) {
        let second = row.at.as_secs();
        if self.last_line == Some(second) && self.last_phase == Some(row.phase) {
            return;
        }
        self.last_line = Some(second);
        self.last_phase = Some(row.phase);
        let mut out = std::io::stdout().lock();
        let line = writeln!(
            out,
            "{second:>4} s  upstream {:<14}  vehicles {}  sent {:>6}  acked {:>6}  backlog {:>6}  delivered {:>6}",
            row.phase.words(),
            row.vehicles,
            row.sent,
            row.acked,
            row.backlog,
            row.delivered
        );
        self.silent = line.is_err();
    }
}
