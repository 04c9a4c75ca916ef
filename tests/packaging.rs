//! What the package brings beside the program is of this version: man pages, completions, changelog.
//!
//! `UPDATE_PACKAGING=1 cargo test --test packaging` writes the man pages and completions anew.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use clap_complete::Shell;

/// Holds a file of `packaging/` against what it has to be, or makes it that.
fn kept(name: &str, wanted: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("packaging").join(name);
    if std::env::var_os("UPDATE_PACKAGING").is_some() {
        fs::write(&path, wanted).unwrap();
    }
    assert!(
        fs::read_to_string(&path).unwrap_or_default() == wanted,
        "packaging/{name} is not of this version; run: UPDATE_PACKAGING=1 cargo test --test packaging"
    );
}

#[test]
fn the_man_page_of_the_program_has_every_command_and_option() {
    let mut command = waystation::cli::command();
    command.build();
    let mut page = head("1", "waystation", &command.get_about().unwrap().to_string());
    page += ".SH SYNOPSIS\n.B waystation\n.I COMMAND\n[\\fIOPTIONS\\fR]\n.SH COMMANDS\n";
    describe(&mut page, &command, "waystation");
    writeln!(
        page,
        ".SH EXIT STATUS\n{}",
        text(&command.get_after_help().unwrap().to_string())
    )
    .unwrap();
    page += FILES;
    page += ".SH SEE ALSO\n.BR waystation.toml (5),\n.BR systemctl (1),\n.BR journalctl (1)\n";
    kept("man/waystation.1", &page);
}

const FILES: &str = ".SH FILES
.TP
.I /etc/waystation/config.toml
The configuration.
.TP
.I /etc/waystation/tls
Certificates and keys; the directory belongs to the user that the service runs as.
.TP
.I /var/lib/waystation
What is kept until it is delivered.
.TP
.I /run/waystation
ZMQ's ipc sockets, for the members of the group waystation.
.TP
.I /usr/share/doc/waystation/examples
Drop-ins for the unit, a hook for certbot.
";

fn head(section: &str, name: &str, about: &str) -> String {
    format!(
        ".TH {} {section} \"\" waystation\n.SH NAME\n{name} \\- {}\n",
        name.to_uppercase(),
        text(about)
    )
}

fn describe(page: &mut String, command: &clap::Command, name: &str) {
    for sub in command.get_subcommands().filter(|sub| sub.get_name() != "help") {
        let name = format!("{name} {}", sub.get_name());
        if sub.has_subcommands() {
            describe(page, sub, &name);
            continue;
        }
        let usage = sub.clone().render_usage().to_string();
        let usage = usage.trim_start_matches("Usage: ");
        writeln!(page, ".SS {name}\n.B {}\n.PP\n{}", text(usage), text(&about(sub))).unwrap();
        for argument in sub
            .get_arguments()
            .filter(|one| !one.is_hide_set() && one.get_id() != "help")
        {
            page.push_str(".TP\n\\fB");
            page.push_str(&text(&label(argument)));
            writeln!(page, "\\fR\n{}", text(&explained(argument))).unwrap();
        }
        if let Some(after) = sub.get_after_help() {
            writeln!(page, ".PP\n{}", text(&after.to_string())).unwrap();
        }
    }
}

fn about(command: &clap::Command) -> String {
    let about = command.get_long_about().or(command.get_about());
    about.map(ToString::to_string).unwrap_or_default()
}

fn label(argument: &clap::Arg) -> String {
    let value = argument
        .get_value_names()
        .map(|names| names.iter().map(|name| format!("<{name}>")).collect::<Vec<_>>());
    let value = value
        .filter(|_| argument.get_action().takes_values())
        .unwrap_or_default()
        .join(" ");
    let short = argument
        .get_short()
        .map(|short| format!("-{short}, "))
        .unwrap_or_default();
    match argument.get_long() {
        Some(long) => format!("{short}--{long} {value}").trim_end().to_owned(),
        None => value,
    }
}

fn explained(argument: &clap::Arg) -> String {
    let mut told = argument.get_help().map(ToString::to_string).unwrap_or_default();
    let defaults: Vec<_> = argument
        .get_default_values()
        .iter()
        .map(|value| value.to_string_lossy())
        .collect();
    let possible: Vec<_> = argument
        .get_possible_values()
        .iter()
        .map(|value| value.get_name().to_owned())
        .collect();
    if argument.get_action().takes_values() && !possible.is_empty() {
        write!(told, ": {}", possible.join(", ")).unwrap();
    }
    let shown = argument.get_action().takes_values() && !argument.is_hide_default_value_set();
    if shown && !defaults.is_empty() {
        write!(told, " [default: {}]", defaults.join(" ")).unwrap();
    }
    told
}

/// Lines of plain text as roff takes them.
fn text(plain: &str) -> String {
    let line = |line: &str| {
        let line = line.trim().replace('\\', "\\e").replace('-', "\\-").replace('`', "");
        // A control character at the start of a line would be a command.
        if line.starts_with(['.', '\'']) {
            format!("\\&{line}")
        } else {
            line
        }
    };
    plain.lines().map(line).collect::<Vec<_>>().join("\n")
}

#[test]
fn the_man_page_of_the_configuration_is_the_example_with_every_key_of_it() {
    let example = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("config.toml.example")).unwrap();
    let mut page = head(
        "5",
        "waystation.toml",
        "configuration of waystation, /etc/waystation/config.toml",
    );
    page += ".SH DESCRIPTION\n";
    let (mut told, mut keys) = (String::new(), Vec::new());
    for line in example.lines().chain([""]) {
        if let Some(comment) = line.strip_prefix("# ") {
            writeln!(told, "{}", text(comment)).unwrap();
        } else if line.starts_with('[') {
            writeln!(page, ".SH {}\n{told}", text(line)).unwrap();
            told.clear();
        } else if line.is_empty() {
            // The end of a paragraph that belongs to no key.
            page.push_str(&std::mem::take(&mut told));
        } else {
            let key = line.trim_start_matches('#').split(" = ").next().unwrap();
            writeln!(page, ".TP\n.B {}\n{told}.RS\n.EX\n{}\n.EE\n.RE", text(key), text(line)).unwrap();
            told.clear();
            keys.push(key.to_owned());
        }
    }
    page += ".SH SEE ALSO\n.BR waystation (1)\n";
    kept("man/waystation.toml.5", &page);
    assert!(keys.len() > 60, "{keys:?}");
    for key in keys {
        assert!(page.contains(&format!("\n.B {}\n", text(&key))), "{key}");
    }
}

/// For fish no more than two levels of commands are written: what the third takes is offered from the second on.
fn for_fish(mut command: clap::Command) -> clap::Command {
    let queue = command.find_subcommand_mut("queue").unwrap();
    let letters = queue.find_subcommand_mut("dead-letters").unwrap();
    let deeper = letters.get_subcommands().flat_map(clap::Command::get_arguments);
    let deeper: BTreeMap<_, _> = deeper
        .map(|argument| (argument.get_id().clone(), argument.clone()))
        .collect();
    *letters = std::mem::take(letters).args(deeper.into_values());
    command
}

#[test]
fn completions_know_every_command() {
    for (shell, name) in [
        (Shell::Bash, "waystation.bash"),
        (Shell::Zsh, "_waystation"),
        (Shell::Fish, "waystation.fish"),
    ] {
        let mut written = Vec::new();
        let mut command = match shell {
            Shell::Fish => for_fish(waystation::cli::command()),
            _ => waystation::cli::command(),
        };
        clap_complete::generate(shell, &mut command, "waystation", &mut written);
        kept(&format!("completions/{name}"), &String::from_utf8(written).unwrap());
    }
}

#[test]
fn the_changelog_begins_with_this_version_and_every_asset_is_there() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let changelog = fs::read_to_string(root.join("packaging/changelog")).unwrap();
    let version = format!("waystation ({}) ", env!("CARGO_PKG_VERSION"));
    assert!(
        changelog.starts_with(&version),
        "packaging/changelog begins not with {version:?}"
    );
    let manifest = fs::read_to_string(root.join("Cargo.toml")).unwrap();
    let (_, assets) = manifest.split_once("\nassets = [\n").unwrap();
    let lines = assets.lines().take_while(|line| *line != "]");
    let sources = lines.map(|line| PathBuf::from(line.split('"').nth(1).unwrap()));
    for source in sources.filter(|source| !source.starts_with("target")) {
        assert!(
            root.join(&source).is_file(),
            "{} is in Cargo.toml's package and not there",
            source.display()
        );
    }
}
