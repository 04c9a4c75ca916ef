//! A machine on which everything is in order for a gateway, for `waystation check` to look at; and what that says.
#![allow(dead_code)]

use std::fs;
use std::os::unix::fs::lchown;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, Output};

use crate::daemon::Daemon;

const REST: &str = r#"
    [records]
    "*" = ["file"]
    [destinations.file]
    type = "log"
    path = "out.jsonl"
"#;

const NOBODY: u32 = 65_534;

/// A configured machine with nothing wrong.
pub(crate) struct Machine {
    pub(crate) daemon: Daemon,
}

impl Machine {
    pub(crate) fn new() -> Self {
        let daemon = Daemon::new(0, "max_bytes = \"64 MiB\"\nsegment_size = \"1 MiB\"", REST);
        Self { daemon }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.daemon.path(name)
    }

    pub(crate) fn write(&self, name: &str, content: impl AsRef<[u8]>) {
        fs::write(self.path(name), content).unwrap();
    }

    /// Another destination, to which everything goes too.
    pub(crate) fn destination(&self, lines: &str) {
        self.daemon.edit("\"*\" = [\"file\"]", "\"*\" = [\"file\", \"more\"]");
        self.daemon.edit(
            "[destinations.file]",
            &format!("[destinations.more]\n{lines}\n[destinations.file]"),
        );
    }

    pub(crate) fn check(&self, more: &[&str]) -> Output {
        Command::new(env!("CARGO_BIN_EXE_waystation"))
            .args(["check", "--config"])
            .arg(self.path("config.toml"))
            .args(more)
            .output()
            .unwrap()
    }

    /// A command as somebody whom the machine belongs to, but for what root has in it since.
    pub(crate) fn as_nobody(&self, arguments: &[&str]) -> Output {
        Command::new(env!("CARGO_BIN_EXE_waystation"))
            .args(arguments)
            .arg("--config")
            .arg(self.path("config.toml"))
            .uid(NOBODY)
            .gid(NOBODY)
            .output()
            .unwrap()
    }

    /// Gives everything away. Needs root.
    pub(crate) fn give_to_nobody(&self) {
        assert!(
            rustix::process::geteuid().is_root(),
            "this test gives files away and needs root: sudo env \"PATH=$PATH\" scripts/test.sh"
        );
        let mut left = vec![self.path("")];
        while let Some(path) = left.pop() {
            lchown(&path, Some(NOBODY), Some(NOBODY)).unwrap();
            let entries = fs::read_dir(&path).into_iter().flatten();
            left.extend(entries.map(|entry| entry.unwrap().path()));
        }
    }

    /// The lines that say that something is wrong or odd.
    pub(crate) fn complaints(&self, more: &[&str]) -> Vec<String> {
        let output = self.check(more);
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        let faults = said.lines().filter(|line| line.starts_with('✗')).count();
        assert_eq!(output.status.code(), Some(i32::from(faults > 0)), "{output:?}");
        let odd = said.lines().filter(|line| line.starts_with(['✗', '!']));
        odd.map(str::to_owned).collect()
    }

    /// That exactly one line complains, and how.
    pub(crate) fn says(&self, begin: &str, words: &str) {
        self.says_with(&[], begin, words);
    }

    pub(crate) fn says_with(&self, more: &[&str], begin: &str, words: &str) {
        let complaints = self.complaints(more);
        let [line] = &complaints[..] else {
            panic!("{begin}: {complaints:#?}");
        };
        assert!(
            line.starts_with(begin) && line.contains(words),
            "{begin} … {words}: {line}"
        );
    }
}
