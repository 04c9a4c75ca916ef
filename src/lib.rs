//! waystation: an edge gateway for vehicle telemetry.
//!
//! ```text
//! vehicle ──mTLS WebSocket──▶ listener ─▶ record ─▶ queue (durable) ─▶ forwarder ─▶ destination ──▶ MQTT · Kafka · ZMQ · log
//!                                ▲                    │                  one per destination, each with its own cursor
//!                                └──── ack ◀──────────┘ only after the commit
//! ```
//!
//! 1. An ack is released by the queue's writer after the commit that holds its record, and by nothing else.
//! 2. A destination's cursor moves only over what that destination has confirmed.
//! 3. A vehicle's records are delivered in the order in which they were acknowledged.
//! 4. The listener and the forwarders meet only in the queue: one slow destination holds back nobody else.
//! 5. Everything in flight is bounded in bytes.
//! 6. Whatever is on the disk, the gateway starts.
//!
//! `docs/design.md` has the reasons.

pub mod admin;
pub mod cli;
pub mod config;
pub mod destination;
pub mod forwarder;
pub mod gateway;
pub mod listener;
pub mod queue;
pub mod record;
pub mod system;
