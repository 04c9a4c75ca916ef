//! How large the program is, and the package that it comes in.

use std::path::Path;
use std::process::Command;

use crate::Bench;
use crate::process::WAYSTATION;
use crate::report::{Row, Target};

pub(crate) fn measure(_: &Bench) -> Vec<Row> {
    let megabytes = |path: &str| std::fs::metadata(path).expect("it was built").len() as f64 / 1e6;
    vec![
        Row::plain(
            "size.program",
            "stripped program",
            "MB",
            &[megabytes(WAYSTATION)],
            Target::AtMost(8.0),
        ),
        Row::plain(
            "size.package",
            "package",
            "MB",
            &[megabytes(&package())],
            Target::AtMost(6.0),
        ),
    ]
}

/// The package of this machine's architecture, built for it. Unchecked: one that is too large is to be told, not refused.
fn package() -> String {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let built = Command::new(root.join("scripts/build-deb.sh"))
        .arg("--unchecked")
        .current_dir(root)
        .output();
    let built = built.expect("it is a script with a shell");
    let said = String::from_utf8_lossy(&built.stdout).into_owned();
    assert!(
        built.status.success(),
        "scripts/build-deb.sh: {said}{}",
        String::from_utf8_lossy(&built.stderr)
    );
    let path = said.lines().last().expect("it says where the package is");
    root.join(path).to_string_lossy().into_owned()
}
