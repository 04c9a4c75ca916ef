//! The records that a vehicle has come and gone, for destinations that want them.
//!
//! Invariant: they are in the vehicle's order, CONNECTED before its first record and DISCONNECTED behind its last.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::timeout;

use super::ending::End;
use super::session::Session;
use crate::queue::{Item, Refusal};
use crate::record::payload::{self, ConnectivityStatus};
use crate::record::{Record, epoch_ms};

/// For the last connectivity record to find room in the queue.
const GOODBYE_TIMEOUT: Duration = Duration::from_secs(5);

impl Session {
    pub(super) async fn announce(&mut self, status: ConnectivityStatus) -> Result<(), Refusal> {
        match self.connectivity(status) {
            None => Ok(()),
            Some(record) => match self.submit(Item::Record(record), None, 0).await {
                Err(End::Refused(refusal)) => Err(refusal),
                _ => Ok(()),
            },
        }
    }

    fn connectivity(&self, status: ConnectivityStatus) -> Option<Record> {
        const TYPE: &str = "connectivity";
        self.around.settings.routes.is_routed(TYPE).then(|| {
            let received_at = epoch_ms();
            let vin = &self.identity.device_id;
            let payload = payload::connectivity(vin, &self.connection_id, &self.network_interface, status, received_at);
            self.around.counters.record(TYPE, payload.len());
            Record {
                vin: Arc::clone(vin),
                record_type: TYPE.into(),
                txid: Bytes::copy_from_slice(self.connection_id.as_bytes()),
                received_at,
                client_version: Arc::clone(&self.client_version),
                payload,
                origin: None,
                only: None,
            }
        })
    }

    /// The DISCONNECTED record, by a sender of its own: this session's may have been refused.
    pub(super) async fn say_goodbye(&mut self) {
        let Some(record) = self.connectivity(ConnectivityStatus::Disconnected) else {
            return;
        };
        let mut submitter = self.around.queue.submitter();
        let stored = timeout(GOODBYE_TIMEOUT, submitter.store(Item::Record(record))).await;
        if !matches!(stored, Ok(Ok(()))) {
            self.around.counters.connectivity_dropped.add();
        }
    }
}
