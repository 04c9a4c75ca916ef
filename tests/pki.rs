//! The throwaway PKI on disk: what it writes, that it writes over nothing, and that it can be added to.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use waystation::cli::pki::{Pki, PkiArgs, PkiError, run, vins};

fn arguments(out: &Path, vehicles: usize) -> PkiArgs {
    PkiArgs {
        out: out.to_owned(),
        names: Vec::new(),
        vehicles,
        vins: Vec::new(),
    }
}

fn files(dir: &Path) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

#[test]
fn made_up_vins_have_17_characters_and_are_numbered_from_1() {
    let vins = vins(1_000);
    assert_eq!(
        (vins[0].as_str(), vins[999].as_str()),
        ("5YJ3E1EA7KF000001", "5YJ3E1EA7KF001000")
    );
    assert!(vins.iter().all(|vin| vin.len() == 17));
}

#[test]
fn a_pki_is_written_whole_with_its_keys_readable_by_the_owner_alone() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("new/pki");
    run(&PkiArgs {
        names: vec!["gateway.example.com".to_owned(), "10.0.0.1".to_owned()],
        ..arguments(&out, 2)
    })
    .unwrap();
    let top = [
        "server-ca.pem",
        "server.key",
        "server.pem",
        "vehicle-ca.key",
        "vehicle-ca.pem",
        "vehicles",
    ];
    assert_eq!(files(&out), top);
    let vehicles = [
        "5YJ3E1EA7KF000001.key",
        "5YJ3E1EA7KF000001.pem",
        "5YJ3E1EA7KF000002.key",
        "5YJ3E1EA7KF000002.pem",
    ];
    assert_eq!(files(&out.join("vehicles")), vehicles);
    for key in ["server.key", "vehicle-ca.key", "vehicles/5YJ3E1EA7KF000001.key"] {
        assert_eq!(
            fs::metadata(out.join(key)).unwrap().permissions().mode() & 0o777,
            0o600,
            "{key}"
        );
    }
}

#[test]
fn more_vehicles_are_added_to_a_pki_and_nothing_of_it_changes() {
    let dir = tempfile::tempdir().unwrap();
    run(&arguments(dir.path(), 2)).unwrap();
    let read = |name: &str| fs::read_to_string(dir.path().join(name)).unwrap();
    let before = ["vehicle-ca.pem", "server.pem", "vehicles/5YJ3E1EA7KF000001.pem"].map(read);
    run(&PkiArgs {
        vins: vec!["MYVIN".to_owned()],
        ..arguments(dir.path(), 3)
    })
    .unwrap();
    assert_eq!(files(&dir.path().join("vehicles")).len(), 8);
    assert_eq!(
        ["vehicle-ca.pem", "server.pem", "vehicles/5YJ3E1EA7KF000001.pem"].map(read),
        before
    );
    let (_, der) = x509_parser::pem::parse_x509_pem(read("vehicles/MYVIN.pem").as_bytes()).unwrap();
    let (_, ca) = x509_parser::pem::parse_x509_pem(read("vehicle-ca.pem").as_bytes()).unwrap();
    assert_eq!(der.parse_x509().unwrap().issuer(), ca.parse_x509().unwrap().subject());
    run(&arguments(dir.path(), 3)).unwrap();
}

#[test]
fn nothing_that_exists_is_written_over() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("server.pem"), "mine").unwrap();
    let refused = Pki::new(&[]).unwrap().write(dir.path(), &[]).unwrap_err();
    assert!(
        matches!(&refused, PkiError::Exists(path) if path.ends_with("server.pem")),
        "{refused}"
    );
    assert_eq!(files(dir.path()), ["server.pem"]);

    let dir = tempfile::tempdir().unwrap();
    run(&arguments(dir.path(), 1)).unwrap();
    let refused = run(&PkiArgs {
        names: vec!["x".to_owned()],
        ..arguments(dir.path(), 1)
    })
    .unwrap_err();
    assert!(matches!(refused, PkiError::NamesAreFixed(_)), "{refused}");
    fs::remove_file(dir.path().join("vehicles/5YJ3E1EA7KF000001.pem")).unwrap();
    let refused = run(&arguments(dir.path(), 1)).unwrap_err();
    assert!(
        matches!(&refused, PkiError::Exists(path) if path.ends_with("5YJ3E1EA7KF000001.key")),
        "{refused}"
    );
}

#[test]
fn an_authority_that_is_not_ours_or_has_another_key_signs_nothing() {
    let (one, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    run(&arguments(one.path(), 1)).unwrap();
    run(&arguments(other.path(), 1)).unwrap();
    fs::copy(other.path().join("vehicle-ca.key"), one.path().join("vehicle-ca.key")).unwrap();
    let refused = run(&arguments(one.path(), 2)).unwrap_err().to_string();
    assert!(
        refused.contains("vehicle-ca.key is another certificate's key"),
        "{refused}"
    );
    fs::copy(other.path().join("server.pem"), one.path().join("vehicle-ca.pem")).unwrap();
    fs::copy(other.path().join("server.key"), one.path().join("vehicle-ca.key")).unwrap();
    let refused = run(&arguments(one.path(), 2)).unwrap_err().to_string();
    assert!(refused.contains("was not made by waystation pki"), "{refused}");
}

#[test]
fn a_vin_that_would_leave_the_directory_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    for vin in ["", "../x", "a/b", "a.b", "a b"] {
        let refused = run(&PkiArgs {
            vins: vec![vin.to_owned()],
            ..arguments(&dir.path().join("pki"), 1)
        })
        .unwrap_err();
        assert!(matches!(refused, PkiError::Vin(_)), "{vin:?}: {refused}");
    }
    assert!(!dir.path().join("pki").exists());
}
