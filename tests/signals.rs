//! Signals are counted as Tesla's server names them: by record type, and by VIN for the vehicles that are configured.
#![allow(clippy::unwrap_used)]

#[path = "support/daemon.rs"]
mod daemon;
#[path = "support/raw.rs"]
mod raw;
#[path = "support/records_file.rs"]
mod records_file;

use daemon::Daemon;
use records_file::FILE;
use waystation::cli::pki::vins;

/// Two data, two alerts or two errors: they all are field 1.
const TWO: &[u8] = &[0x0a, 0x00, 0x0a, 0x00];

fn signals(daemon: &Daemon) -> Vec<String> {
    let metrics = daemon.metrics();
    let lines = metrics.lines().filter(|line| line.contains("signal_count{"));
    lines.map(str::to_owned).collect()
}

#[test]
fn signals_are_counted_by_type_and_for_the_vehicles_that_are_named() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let vin = vins(2).pop().unwrap();
    let mut daemon = Daemon::new(2, "", &format!("signal_vins = [\"{vin}\", \"NOBODY\"]\n{FILE}"));
    daemon.start();
    for (vehicle, topic, records) in [
        (0, "V", 3),
        (1, "V", 1),
        (1, "alerts", 2),
        (0, "errors", 1),
        (1, "raw", 1),
    ] {
        let sent = runtime.block_on(raw::send(&daemon, vehicle, topic, TWO, records));
        assert_eq!(sent, (records, None));
    }
    assert_eq!(
        signals(&daemon),
        [
            "signal_count{record_type=\"V\"} 8".to_owned(),
            "signal_count{record_type=\"alerts\"} 4".to_owned(),
            "signal_count{record_type=\"errors\"} 2".to_owned(),
            format!("vin_signal_count{{record_type=\"V\",vin=\"{vin}\"}} 2"),
            format!("vin_signal_count{{record_type=\"alerts\",vin=\"{vin}\"}} 4"),
            format!("vin_signal_count{{record_type=\"errors\",vin=\"{vin}\"}} 0"),
            "vin_signal_count{record_type=\"V\",vin=\"NOBODY\"} 0".to_owned(),
            "vin_signal_count{record_type=\"alerts\",vin=\"NOBODY\"} 0".to_owned(),
            "vin_signal_count{record_type=\"errors\",vin=\"NOBODY\"} 0".to_owned(),
        ]
    );
    assert_eq!(daemon.status()["listener"]["signals"]["vins"][&vin]["alerts"], 4);
    daemon.edit("\"NOBODY\"", "\"SOMEBODY\"");
    let said = daemon.reload();
    assert!(said.contains("admin") && said.contains("restart"), "{said}");
}

#[test]
fn without_a_name_there_is_no_metric_by_vin() {
    let mut daemon = Daemon::new(1, "", FILE);
    daemon.start();
    assert_eq!(
        signals(&daemon),
        ["V", "alerts", "errors"].map(|record_type| format!("signal_count{{record_type=\"{record_type}\"}} 0"))
    );
}
