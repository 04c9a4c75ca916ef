//! What a pump publishes about itself; nobody changes it but the pump.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

/// One destination's state, kept up to date by its pump.
#[derive(Debug)]
pub struct Status {
    /// Its name in the configuration.
    pub name: String,
    /// `kafka`, `mqtt`, `zmq` or `log`.
    pub kind: &'static str,
    connected: AtomicBool,
    unreachable: AtomicBool,
    in_flight: AtomicU64,
    sent: AtomicU64,
    sent_bytes: AtomicU64,
    confirmed: AtomicU64,
    confirmed_bytes: AtomicU64,
    refused: AtomicU64,
    failures: AtomicU64,
    inexpressible: AtomicU64,
    last_error: Mutex<Option<String>>,
    held: Mutex<Option<String>>,
}

/// The same, at one moment.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct StatusSnapshot {
    /// Its name in the configuration.
    pub name: String,
    /// `kafka`, `mqtt`, `zmq` or `log`.
    pub kind: &'static str,
    /// Whether a session is up and its last word was a good one.
    pub connected: bool,
    /// Records handed over and not confirmed.
    pub in_flight: u64,
    /// Records handed over since the start, repeats included.
    pub sent: u64,
    /// Bytes of what was made of them.
    pub sent_bytes: u64,
    /// Records confirmed since the start.
    pub confirmed: u64,
    /// Bytes of what was made of them.
    pub confirmed_bytes: u64,
    /// Records that went to the dead letters since the start.
    pub refused: u64,
    /// Sessions that failed since the start.
    pub failures: u64,
    /// Values that the destination's form cannot express, sent as nothing.
    pub inexpressible: u64,
    /// Why nothing arrives, until something does again.
    pub last_error: Option<String>,
    /// Why nothing is sent at present, when that is as it should be.
    pub held: Option<String>,
}

impl Status {
    pub(crate) fn new(name: &str, kind: &'static str) -> Self {
        Self {
            name: name.to_owned(),
            kind,
            connected: AtomicBool::new(false),
            unreachable: AtomicBool::new(false),
            in_flight: AtomicU64::new(0),
            sent: AtomicU64::new(0),
            sent_bytes: AtomicU64::new(0),
            confirmed: AtomicU64::new(0),
            confirmed_bytes: AtomicU64::new(0),
            refused: AtomicU64::new(0),
            failures: AtomicU64::new(0),
            inexpressible: AtomicU64::new(0),
            last_error: Mutex::new(None),
            held: Mutex::new(None),
        }
    }

    /// The state now.
    pub fn snapshot(&self) -> StatusSnapshot {
        let read = |value: &AtomicU64| value.load(Ordering::Relaxed);
        StatusSnapshot {
            name: self.name.clone(),
            kind: self.kind,
            connected: self.connected.load(Ordering::Relaxed),
            in_flight: read(&self.in_flight),
            sent: read(&self.sent),
            sent_bytes: read(&self.sent_bytes),
            confirmed: read(&self.confirmed),
            confirmed_bytes: read(&self.confirmed_bytes),
            refused: read(&self.refused),
            failures: read(&self.failures),
            inexpressible: read(&self.inexpressible),
            last_error: self.last_error.lock().unwrap_or_else(PoisonError::into_inner).clone(),
            held: self.held.lock().unwrap_or_else(PoisonError::into_inner).clone(),
        }
    }

    pub(crate) fn sent(&self, bytes: usize, inexpressible: usize) {
        self.inexpressible.fetch_add(inexpressible as u64, Ordering::Relaxed);
        self.sent.fetch_add(1, Ordering::Relaxed);
        self.sent_bytes.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    pub(crate) fn confirmed(&self, bytes: usize) {
        self.confirmed.fetch_add(1, Ordering::Relaxed);
        self.confirmed_bytes.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    pub(crate) fn refused(&self) {
        self.refused.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn in_flight(&self, records: usize) {
        self.in_flight.store(records as u64, Ordering::Relaxed);
    }

    /// Nothing is to be sent, or something is again. Returns whether that is news.
    pub(crate) fn held(&self, why: Option<String>) -> bool {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        if why.is_some() {
            self.connected.store(false, Ordering::Relaxed);
        }
        let news = *held != why;
        *held = why;
        news
    }

    /// A session could begin. Returns whether it is news that one is up.
    pub(crate) fn reached(&self) -> bool {
        let mut last = self.last_error.lock().unwrap_or_else(PoisonError::into_inner);
        // What a destination refuses stays true until something arrives.
        if self.unreachable.swap(false, Ordering::Relaxed) {
            *last = None;
        }
        last.is_none() && !self.connected.swap(true, Ordering::Relaxed)
    }

    /// No session could begin, or one was lost with nothing on its way: the next that can begin shows that this is over.
    pub(crate) fn not_reached(&self) {
        self.unreachable.store(true, Ordering::Relaxed);
    }

    /// A session is up. Returns whether that is news.
    pub(crate) fn up(&self) -> bool {
        *self.last_error.lock().unwrap_or_else(PoisonError::into_inner) = None;
        !self.connected.swap(true, Ordering::Relaxed)
    }

    /// A session has failed.
    pub(crate) fn failed(&self) {
        self.failures.fetch_add(1, Ordering::Relaxed);
    }

    /// Nothing arrives any more. Returns whether the reason is news.
    pub(crate) fn down(&self, reason: &str) -> bool {
        self.connected.store(false, Ordering::Relaxed);
        let mut last = self.last_error.lock().unwrap_or_else(PoisonError::into_inner);
        let news = last.as_deref() != Some(reason);
        *last = Some(reason.to_owned());
        news
    }
}
