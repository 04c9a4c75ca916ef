//! How things are, in one line for `systemctl status`.

use super::{DestinationReport, Report};

impl Report {
    /// Vehicles, backlog, and each destination's state.
    pub fn in_words(&self) -> String {
        let vehicles = match self.listener.connections {
            1 => "1 vehicle".to_owned(),
            many => format!("{many} vehicles"),
        };
        let queue = match &self.queue.full_reason {
            Some(reason) => format!("QUEUE FULL, vehicles are refused: {reason}"),
            None => format!("queue {}", bytes(self.queue.disk_bytes)),
        };
        let destinations = self.destinations.iter().map(destination);
        let reload = self.reload_error.as_ref().map(|error| {
            let first = error.lines().next().unwrap_or_default();
            format!("LAST RELOAD FAILED, everything is as before it: {first}")
        });
        let parts = [vehicles, queue].into_iter().chain(destinations).chain(reload);
        parts.collect::<Vec<_>>().join("; ")
    }
}

fn destination(report: &DestinationReport) -> String {
    let status = &report.status;
    let behind = match report.backlog {
        0 => String::new(),
        1 => ", 1 record waits".to_owned(),
        many => format!(", {many} records wait"),
    };
    let state = match (&status.held, &status.last_error) {
        (Some(why), _) => why.as_str(),
        (None, Some(error)) => error.lines().next().unwrap_or_default(),
        (None, None) if status.connected => "connected",
        (None, None) => "nothing sent yet",
    };
    format!("{}: {state}{behind}", status.name)
}

fn bytes(bytes: u64) -> String {
    match bytes {
        0..1_048_576 => format!("{} KiB", bytes.div_ceil(1024)),
        1_048_576..1_073_741_824 => format!("{} MiB", bytes >> 20),
        _ => format!("{:.1} GiB", bytes as f64 / f64::from(1 << 30)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_in_the_unit_that_reads_best() {
        assert_eq!(bytes(0), "0 KiB");
        assert_eq!(bytes(1), "1 KiB");
        assert_eq!(bytes(5 << 20), "5 MiB");
        assert_eq!(bytes(3 << 29), "1.5 GiB");
    }
}
