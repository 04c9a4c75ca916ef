//! What may know what: every path to `crate::…` in `src/` leads downwards. And every file says what it is for.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::{Path, PathBuf};

/// Module → what it may use besides itself. The listener and the forwarder meet only in the queue.
const MAY_USE: [(&str, &[&str]); 10] = [
    ("record", &[]),
    ("system", &[]),
    ("config", &["record"]),
    ("queue", &["record"]),
    ("destination", &["record", "config", "queue"]),
    ("listener", &["record", "config", "queue"]),
    ("forwarder", &["record", "config", "queue", "destination"]),
    ("admin", &["queue", "listener", "forwarder"]),
    (
        "gateway",
        &[
            "record",
            "config",
            "queue",
            "destination",
            "listener",
            "forwarder",
            "admin",
            "system",
        ],
    ),
    (
        "cli",
        &[
            "record",
            "config",
            "queue",
            "destination",
            "listener",
            "forwarder",
            "admin",
            "system",
            "gateway",
        ],
    ),
];
/// How a path from the root begins.
const ROOT: &str = "crate::";
const UP: &str = "super::";
/// They belong to no module: the list of the modules, and the call of the command line.
const OUTSIDE: [&str; 2] = ["lib.rs", "main.rs"];

/// The imports of a file, by its path below `src/`, that its module may not have.
fn violations(path: &str, text: &str) -> Vec<String> {
    let module = path.split(['/', '.']).next().unwrap();
    let Some((_, allowed)) = MAY_USE.iter().find(|(name, _)| *name == module) else {
        return vec![format!("src/{path}: the module `{module}` has no place in the layers")];
    };
    let mut found = Vec::new();
    for (number, used) in crate_paths(path, text) {
        if used != module && !allowed.contains(&used.as_str()) {
            found.push(format!("src/{path}:{number}: `{module}` may not use `crate::{used}`"));
        }
    }
    found
}

/// The first name of each path from the crate's root, braces included, with its line. `super::` leads there too where
/// there is enough of it.
fn crate_paths(path: &str, text: &str) -> Vec<(usize, String)> {
    let code: String = text
        .split_inclusive('\n')
        .map(|line| match line.find("//") {
            // Kept as an empty line, for the count. A `//` in a string ends the line too; no path comes after one.
            Some(at) => format!("{}\n", &line[..at]),
            None => line.to_owned(),
        })
        .collect();
    let depth = path.split('/').filter(|part| *part != "mod.rs").count();
    let mut paths = Vec::new();
    for root in [ROOT.to_owned(), UP.repeat(depth)] {
        for (at, _) in code.match_indices(&root) {
            if code[..at].ends_with(|before: char| before.is_alphanumeric() || matches!(before, '_' | ':' | '$')) {
                continue;
            }
            let number = code[..at].matches('\n').count() + 1;
            let rest = code[at + root.len()..].trim_start();
            let names = first_names(rest.trim_start_matches(UP)).into_iter();
            // In a `mod tests` the same chain ends one module lower, at names that are no layer's.
            let layers = names.filter(|name| root == ROOT || MAY_USE.iter().any(|(layer, _)| layer == name));
            paths.extend(layers.map(|name| (number, name)));
        }
    }
    paths
}

/// `a` of `a::b::{c}`; `a` and `d` of `{a::{b, c}, d}`.
fn first_names(path: &str) -> Vec<String> {
    let name = |text: &str| -> String {
        let text = text.trim_start();
        text.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect()
    };
    let Some(group) = path.strip_prefix('{') else {
        return vec![name(path)];
    };
    let (mut names, mut depth) = (vec![name(group)], 0);
    for (at, c) in group.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth == 0 => break,
            '}' => depth -= 1,
            ',' if depth == 0 => names.push(name(&group[at + 1..])),
            _ => {}
        }
    }
    names.retain(|name| !name.is_empty());
    names
}

/// Every source file: its path below `src/` and its text.
fn sources() -> Vec<(String, String)> {
    fn collect(dir: &Path, into: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            match path.is_dir() {
                true => collect(&path, into),
                false if path.extension().is_some_and(|extension| extension == "rs") => into.push(path),
                false => {}
            }
        }
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut paths = Vec::new();
    collect(&root, &mut paths);
    paths.sort();
    let below = |path: &Path| path.strip_prefix(&root).unwrap().to_str().unwrap().to_owned();
    paths
        .iter()
        .map(|path| (below(path), fs::read_to_string(path).unwrap()))
        .collect()
}

#[test]
fn nothing_imports_upwards() {
    let sources = sources();
    assert!(sources.len() > 40, "{}", sources.len());
    let found: Vec<_> = sources
        .iter()
        .filter(|(path, _)| !OUTSIDE.contains(&path.as_str()))
        .flat_map(|(path, text)| violations(path, text))
        .collect();
    assert!(found.is_empty(), "\n{}\n", found.join("\n"));
}

#[test]
fn every_file_says_what_it_is_for() {
    let silent: Vec<_> = sources()
        .into_iter()
        .filter(|(_, text)| !text.starts_with("//! "))
        .map(|(path, _)| path)
        .collect();
    assert!(silent.is_empty(), "these do not open with //!: {}", silent.join(", "));
}

#[test]
fn the_rule_itself_goes_downwards() {
    for (at, (module, allowed)) in MAY_USE.iter().enumerate() {
        let below: Vec<_> = MAY_USE[..at].iter().map(|(name, _)| *name).collect();
        assert!(allowed.iter().all(|name| below.contains(name)), "{module}");
    }
}

#[test]
fn a_seeded_violation_is_found_in_whatever_form() {
    let says = |path: &str, text: &str| violations(path, text).join("; ");
    assert_eq!(
        says("record/mod.rs", "//! Doc.\n\nuse crate::config::Routes;\n"),
        "src/record/mod.rs:3: `record` may not use `crate::config`"
    );
    assert_eq!(
        says(
            "listener/session.rs",
            "fn f() {\n    crate::forwarder::Pump::new();\n}\n"
        ),
        "src/listener/session.rs:2: `listener` may not use `crate::forwarder`"
    );
    assert_eq!(
        says(
            "queue/reader.rs",
            "use crate::{\n    record::{Record, stored},\n    listener::Counters,\n};\n"
        ),
        "src/queue/reader.rs:1: `queue` may not use `crate::listener`"
    );
    assert_eq!(
        says("gateway.rs", "pub(crate) use crate::cli::pki;"),
        "src/gateway.rs:1: `gateway` may not use `crate::cli`"
    );
    assert_eq!(
        says(
            "listener/session.rs",
            "use super::super::forwarder::Pump;\nuse super::super::queue::Queue;\n"
        ),
        "src/listener/session.rs:1: `listener` may not use `crate::forwarder`"
    );
    assert_eq!(
        says(
            "queue/mod.rs",
            "mod tests {\n    use super::*;\n    use super::super::admin::Report;\n}\n"
        ),
        "src/queue/mod.rs:3: `queue` may not use `crate::admin`"
    );
    assert_eq!(
        says("helpers/mod.rs", ""),
        "src/helpers/mod.rs: the module `helpers` has no place in the layers"
    );
}

#[test]
fn what_is_allowed_is_not_taken_for_a_violation() {
    for (path, text) in [
        (
            "record/json.rs",
            "use crate::record::{payload, proto};\nuse super::Record;\n",
        ),
        (
            "destination/log.rs",
            "use crate::{config, queue::{Queued, Reader}, record};",
        ),
        (
            "config/mod.rs",
            "//! `crate::queue` in prose\nuse std::io; // not crate::queue::Queue\n",
        ),
        (
            "system/logging.rs",
            "use other_crate::queue::Queue;\nlet a = $crate::queue::Queue;\n",
        ),
        (
            "cli/run.rs",
            "pub(crate) fn f(crate_: u8) {}\nuse crate::gateway::Gateway;\n",
        ),
    ] {
        assert_eq!(violations(path, text), Vec::<String>::new(), "{path}");
    }
}
