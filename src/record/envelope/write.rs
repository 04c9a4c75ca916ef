//! Envelopes, written back to front as FlatBuffers builders do, so that each is byte for byte what vehicles and the reference
//! write.
//!
//! Invariant: every reference leads to something that is in the buffer already, so that it is a positive distance.

use bytes::Bytes;

use super::{ERROR_PAYLOAD, STREAM, STREAM_ACK, Stream};

/// The acknowledgement of a record.
pub fn ack(txid: &[u8], topic: &[u8]) -> Bytes {
    let mut builder = Builder::with_capacity(96 + txid.len() + topic.len());
    let message = builder.string(b"");
    builder.envelope(txid, topic, STREAM_ACK, message)
}

/// The reply to a record that cannot be read.
pub fn error_reply(txid: &[u8]) -> Bytes {
    stream(&Stream {
        txid: Bytes::copy_from_slice(txid),
        payload: Bytes::from_static(ERROR_PAYLOAD),
        ..Stream::default()
    })
}

/// A record as a vehicle writes it.
pub fn stream(fields: &Stream) -> Bytes {
    let strings = [
        &fields.sender_id,
        &fields.payload,
        &fields.device_type,
        &fields.device_id,
        &fields.txid,
        &fields.topic,
    ];
    let mut builder = Builder::with_capacity(192 + strings.iter().map(|string| string.len()).sum::<usize>());
    let sender_id = builder.string(&fields.sender_id);
    let payload = builder.string(&fields.payload);
    let device_type = builder.string(&fields.device_type);
    let device_id = builder.string(&fields.device_id);

    // In the order in which vehicles write them, which decides where they lie in the table.
    let mut table = builder.table::<6>();
    table.offset(1, sender_id);
    table.scalar(0, u64::from(fields.created_at), 4);
    table.offset(2, payload);
    table.offset(3, device_type);
    table.offset(4, device_id);
    table.scalar(5, fields.delivered_at_epoch_ms, 8);
    let message = table.end();

    builder.envelope(&fields.txid, &fields.topic, STREAM, message)
}

/// Writes a buffer as FlatBuffers builders do: back to front, which here is a vector in reverse that is turned round at the end.
/// A position is a distance from the end of the finished buffer.
struct Builder {
    reversed: Vec<u8>,
    alignment: usize,
}

impl Builder {
    fn with_capacity(capacity: usize) -> Self {
        Self {
            reversed: Vec::with_capacity(capacity),
            alignment: 1,
        }
    }

    fn offset(&self) -> usize {
        self.reversed.len()
    }

    fn push(&mut self, bytes: &[u8]) {
        self.reversed.extend(bytes.iter().rev());
    }

    /// Pads so that something of `size` bytes is aligned after `additional` bytes have been written before it.
    fn align(&mut self, size: usize, additional: usize) {
        self.alignment = self.alignment.max(size);
        let padded = (self.offset() + additional).next_multiple_of(size) - additional;
        self.reversed.resize(padded, 0);
    }

    fn push_reference(&mut self, target: usize) {
        self.align(4, 0);
        let distance = self.offset() + 4 - target;
        self.push(&(distance as u32).to_le_bytes());
    }

    fn string(&mut self, bytes: &[u8]) -> usize {
        self.align(4, bytes.len() + 1);
        self.push(&[0]);
        self.push(bytes);
        self.push(&(bytes.len() as u32).to_le_bytes());
        self.offset()
    }

    fn table<const SLOTS: usize>(&mut self) -> TableBuilder<'_, SLOTS> {
        TableBuilder {
            start: self.offset(),
            slots: [0; SLOTS],
            builder: self,
        }
    }

    fn envelope(mut self, txid: &[u8], topic: &[u8], message_type: u8, message: usize) -> Bytes {
        let txid = self.string(txid);
        let topic = self.string(topic);
        let message_id = self.string(b"");
        let mut table = self.table::<5>();
        table.offset(0, txid);
        table.offset(1, topic);
        table.scalar(2, u64::from(message_type), 1);
        table.offset(3, message);
        table.offset(4, message_id);
        let root = table.end();
        let alignment = self.alignment;
        self.align(alignment, 4);
        self.push_reference(root);
        self.reversed.reverse();
        Bytes::from(self.reversed)
    }
}

struct TableBuilder<'a, const SLOTS: usize> {
    builder: &'a mut Builder,
    start: usize,
    /// Where each field was written; 0 where it was not.
    slots: [usize; SLOTS],
}

impl<const SLOTS: usize> TableBuilder<'_, SLOTS> {
    fn offset(&mut self, slot: usize, target: usize) {
        self.builder.push_reference(target);
        self.slots[slot] = self.builder.offset();
    }

    /// A number of `size` bytes; 0 is the default and not written.
    fn scalar(&mut self, slot: usize, value: u64, size: usize) {
        if value != 0 {
            self.builder.align(size, 0);
            self.builder.push(&value.to_le_bytes()[..size]);
            self.slots[slot] = self.builder.offset();
        }
    }

    /// Writes the reference to the vtable and, in front of it, the vtable. Equal vtables are not shared: an envelope's message
    /// type lies at an odd position, so that no other table here has the same one.
    fn end(self) -> usize {
        self.builder.align(4, 0);
        let used = self.slots.iter().rposition(|at| *at != 0).map_or(0, |last| last + 1);
        let vtable_bytes = (used + 2) * 2;
        self.builder.push(&(vtable_bytes as u32).to_le_bytes());
        let table = self.builder.offset();
        for at in self.slots[..used].iter().rev() {
            let offset = if *at == 0 { 0 } else { table - at };
            self.builder.push(&(offset as u16).to_le_bytes());
        }
        self.builder.push(&((table - self.start) as u16).to_le_bytes());
        self.builder.push(&(vtable_bytes as u16).to_le_bytes());
        table
    }
}
