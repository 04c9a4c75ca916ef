//! The FlatBuffers envelope around every message: read without copying, written byte for byte as vehicles and the reference do.
//!
//! Invariant: whatever the bytes and whatever their alignment, reading never panics and never returns bytes from outside the
//! message. Every offset is checked where it is followed; none is followed twice, so offsets in circles end too.
//! The layout is documented in `protos/envelope.fbs`.

mod write;

use bytes::Bytes;

pub use write::{ack, error_reply, stream};

/// The largest message that is a record, in bytes. Whoever reads the socket refuses larger ones before they come here.
pub const MAX_MESSAGE_BYTES: usize = 1_000_000;

/// The payload of an error reply.
const ERROR_PAYLOAD: &[u8] = b"incorrect message format";

/// The union tags in use.
const STREAM: u8 = 4;
const STREAM_ACK: u8 = 5;

/// What came in one message of a vehicle.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Envelope {
    /// No bytes at all, or an envelope without a message, of whatever type.
    Empty,
    /// A message of another type than a record. An acknowledgement that a vehicle sends is one.
    Other {
        /// The sender's transaction id.
        txid: Bytes,
        /// The topic that it names.
        topic: Bytes,
        /// The union tag.
        message_type: u8,
    },
    /// A record.
    Stream(Stream),
}

/// A record as its envelope carries it. A field that is absent is empty or 0.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Stream {
    /// The sender's transaction id, which its answer carries.
    pub txid: Bytes,
    /// The record type.
    pub topic: Bytes,
    /// `{client type}.{device id}`, as the sender claims it.
    pub sender_id: Bytes,
    /// The record itself.
    pub payload: Bytes,
    /// The client type, as the sender claims it.
    pub device_type: Bytes,
    /// The device id, as the sender claims it.
    pub device_id: Bytes,
    /// When the sender made it, seconds since the epoch.
    pub created_at: u32,
    /// Milliseconds since the epoch, as the sender sets it.
    pub delivered_at_epoch_ms: u64,
}

/// What a gateway answered, as a vehicle reads it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reply {
    /// The record is kept.
    Ack {
        /// The record's transaction id.
        txid: Bytes,
        /// The record's topic.
        topic: Bytes,
    },
    /// The record cannot be read or is not accepted; sending it again is of no use.
    Error {
        /// The record's transaction id; empty where it could not be read.
        txid: Bytes,
    },
    /// Anything else.
    Other,
}

/// Why bytes are not an envelope: what was wrong, and with which part.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EnvelopeError {
    /// An offset or a length leads out of the message.
    #[error("the {part} of the envelope is at byte {at}, beyond the end of a message of {len} bytes")]
    OutOfBounds {
        /// What was being read.
        part: &'static str,
        /// Where it would be.
        at: u64,
        /// The length of the message.
        len: usize,
    },
    /// A vtable too short to be one.
    #[error("the vtable of the {part} has {size} bytes, fewer than the 4 of its own sizes")]
    Vtable {
        /// Whose vtable.
        part: &'static str,
        /// The size it claims.
        size: u16,
    },
}

/// Reads one message of a vehicle. Every byte string in the result is a slice of `message`.
pub fn read(message: &Bytes) -> Result<Envelope, EnvelopeError> {
    if message.is_empty() {
        return Ok(Envelope::Empty);
    }
    let head = Head::read(message)?;
    let Some(union) = head.message else {
        return Ok(Envelope::Empty);
    };
    let reader = Reader(message);
    if head.message_type != STREAM {
        // What it points at is of an unknown shape; that it points into the message is all that can be asked.
        reader.bytes("message", union, 0)?;
        return Ok(Envelope::Other {
            txid: head.txid,
            topic: head.topic,
            message_type: head.message_type,
        });
    }
    let table = reader.table("stream message", union)?;
    Ok(Envelope::Stream(Stream {
        txid: head.txid,
        topic: head.topic,
        created_at: table.u32("created_at", 0)?,
        sender_id: table.string("sender_id", 1)?,
        payload: table.string("payload", 2)?,
        device_type: table.string("device_type", 3)?,
        device_id: table.string("device_id", 4)?,
        delivered_at_epoch_ms: table.u64("delivered_at_epoch_ms", 5)?,
    }))
}

/// Reads one message of a gateway, as a vehicle does.
pub fn read_reply(message: &Bytes) -> Result<Reply, EnvelopeError> {
    if message.is_empty() {
        return Ok(Reply::Other);
    }
    let head = Head::read(message)?;
    match (head.message_type, head.message) {
        // Not followed: the reference puts an empty byte string where a table should be.
        (STREAM_ACK, _) => Ok(Reply::Ack {
            txid: head.txid,
            topic: head.topic,
        }),
        (STREAM, Some(at)) => {
            let table = Reader(message).table("stream message", at)?;
            if table.string("payload", 2)? == ERROR_PAYLOAD {
                Ok(Reply::Error { txid: head.txid })
            } else {
                Ok(Reply::Other)
            }
        }
        _ => Ok(Reply::Other),
    }
}

/// The envelope's own fields.
struct Head {
    txid: Bytes,
    topic: Bytes,
    message_type: u8,
    /// Where the message is said to be.
    message: Option<u64>,
}

impl Head {
    fn read(message: &Bytes) -> Result<Self, EnvelopeError> {
        let reader = Reader(message);
        let root = reader.target("root", 0)?;
        let table = reader.table("root", root)?;
        // Nobody needs the message id, but a message that is cut inside it is not whole.
        table.string("message_id", 4)?;
        Ok(Self {
            txid: table.string("txid", 0)?,
            topic: table.string("topic", 1)?,
            message_type: table.u8("message type", 2)?,
            message: table.reference("message", 3)?,
        })
    }
}

/// Checked reads of little-endian numbers. Positions are 64 bits wide, so no sum of the few 32-bit offsets overflows.
#[derive(Clone, Copy)]
struct Reader<'a>(&'a Bytes);

impl<'a> Reader<'a> {
    fn bytes(self, part: &'static str, at: u64, count: u64) -> Result<&'a [u8], EnvelopeError> {
        let len = self.0.len();
        usize::try_from(at)
            .ok()
            .zip(usize::try_from(at + count).ok())
            .and_then(|(start, end)| self.0.get(start..end))
            .ok_or(EnvelopeError::OutOfBounds { part, at, len })
    }

    fn number<const N: usize>(self, part: &'static str, at: u64) -> Result<u64, EnvelopeError> {
        let mut number = [0; 8];
        number[..N].copy_from_slice(self.bytes(part, at, N as u64)?);
        Ok(u64::from_le_bytes(number))
    }

    /// Where the offset at `at` leads.
    fn target(self, part: &'static str, at: u64) -> Result<u64, EnvelopeError> {
        Ok(at + self.number::<4>(part, at)?)
    }

    fn table(self, part: &'static str, at: u64) -> Result<Table<'a>, EnvelopeError> {
        let back = self.number::<4>(part, at)? as u32 as i32;
        let vtable = i64::try_from(at)
            .ok()
            .and_then(|at| u64::try_from(at - i64::from(back)).ok())
            .ok_or(EnvelopeError::OutOfBounds {
                part,
                at,
                len: self.0.len(),
            })?;
        let size = self.number::<2>(part, vtable)?;
        if size < 4 {
            return Err(EnvelopeError::Vtable {
                part,
                size: size as u16,
            });
        }
        let slots = &self.bytes(part, vtable, size)?[4..];
        Ok(Table {
            reader: self,
            at,
            slots,
        })
    }
}

struct Table<'a> {
    reader: Reader<'a>,
    at: u64,
    /// The vtable's entries: where each field is in the table, 0 where it is absent.
    slots: &'a [u8],
}

impl Table<'_> {
    fn position(&self, slot: usize) -> Option<u64> {
        let entry = self.slots.get(slot * 2..slot * 2 + 2)?;
        match u16::from_le_bytes([entry[0], entry[1]]) {
            0 => None,
            offset => Some(self.at + u64::from(offset)),
        }
    }

    fn scalar<const N: usize>(&self, part: &'static str, slot: usize) -> Result<u64, EnvelopeError> {
        match self.position(slot) {
            Some(at) => self.reader.number::<N>(part, at),
            None => Ok(0),
        }
    }

    fn u8(&self, part: &'static str, slot: usize) -> Result<u8, EnvelopeError> {
        Ok(self.scalar::<1>(part, slot)? as u8)
    }

    fn u32(&self, part: &'static str, slot: usize) -> Result<u32, EnvelopeError> {
        Ok(self.scalar::<4>(part, slot)? as u32)
    }

    fn u64(&self, part: &'static str, slot: usize) -> Result<u64, EnvelopeError> {
        self.scalar::<8>(part, slot)
    }

    fn reference(&self, part: &'static str, slot: usize) -> Result<Option<u64>, EnvelopeError> {
        self.position(slot).map(|at| self.reader.target(part, at)).transpose()
    }

    /// A byte string, as a slice of the message; empty where it is absent.
    fn string(&self, part: &'static str, slot: usize) -> Result<Bytes, EnvelopeError> {
        let Some(at) = self.reference(part, slot)? else {
            return Ok(Bytes::new());
        };
        let len = self.reader.number::<4>(part, at)?;
        let bytes = self.reader.bytes(part, at + 4, len)?;
        Ok(self.reader.0.slice_ref(bytes))
    }
}
