//! A wall clock of the daemon's own, set while it runs; its monotonic clock stays as it is.
#![allow(dead_code)]

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use crate::daemon::Daemon;

pub(crate) struct Clock(PathBuf);

impl Clock {
    /// For the processes of a daemon that are started next; right until it is set.
    pub(crate) fn new(daemon: &mut Daemon) -> Self {
        let library = "/usr/lib/x86_64-linux-gnu/faketime/libfaketime.so.1";
        let library = [library, &library.replace("x86_64", "aarch64")]
            .into_iter()
            .find(|path| Path::new(path).exists())
            .unwrap_or_else(|| panic!("{library} is missing; install it: apt-get install faketime"))
            .to_owned();
        let path = daemon.path("clock");
        daemon.environment("LD_PRELOAD", &library);
        daemon.environment("FAKETIME_TIMESTAMP_FILE", path.to_str().unwrap());
        daemon.environment("FAKETIME_NO_CACHE", "1");
        daemon.environment("FAKETIME_DONT_FAKE_MONOTONIC", "1");
        let clock = Self(path);
        clock.step("+0");
        clock
    }

    /// Sets it off by something like `+10y`.
    pub(crate) fn step(&self, offset: &str) {
        fs::write(&self.0, format!("{offset}\n")).unwrap();
    }

    /// Sets it to the next time, more than an hour away, that it is so many seconds after midnight, UTC.
    pub(crate) fn set(&self, after_midnight: u64) {
        const DAY: u64 = 86_400;
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
        let soonest = now + 3_600;
        let midnight = soonest - soonest % DAY;
        let today = midnight + after_midnight;
        let then = if today < soonest { today + DAY } else { today };
        self.step(&format!("+{}", then - now));
    }
}
