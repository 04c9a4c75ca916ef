//! The newest chunks, in memory: destinations that keep up never touch the disk.
//!
//! Only committed chunks are here, consecutive up to the newest, and never more bytes than the limit.

use std::collections::VecDeque;

use super::chunks::up_to;
use super::segment::{Chunk, RawChunk};

pub(crate) struct Tail {
    chunks: VecDeque<Chunk>,
    bytes: usize,
    limit: usize,
}

impl Tail {
    pub(crate) fn new(limit: usize) -> Self {
        Self {
            chunks: VecDeque::new(),
            bytes: 0,
            limit,
        }
    }

    /// Forgets everything.
    pub(crate) fn clear(&mut self) {
        self.chunks.clear();
        self.bytes = 0;
    }

    /// Adds what was just committed; the oldest go to make room.
    pub(crate) fn push(&mut self, chunk: Chunk) {
        if self.chunks.back().is_some_and(|last| last.end != chunk.first) {
            self.clear();
        }
        self.bytes += chunk.bytes.len();
        self.chunks.push_back(chunk);
        while self.bytes > self.limit
            && let Some(oldest) = self.chunks.pop_front()
        {
            self.bytes -= oldest.bytes.len();
        }
    }

    /// Chunks from the one that holds `from`, up to `max_bytes` but at least one. `None`: not in memory.
    pub(crate) fn read(&self, from: u64, max_bytes: usize) -> Option<Vec<RawChunk>> {
        let start = self.chunks.partition_point(|chunk| chunk.end <= from);
        if self.chunks.get(start)?.first > from {
            return None;
        }
        Some(up_to(self.chunks.range(start..), max_bytes).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chunk(first: u64, end: u64) -> Chunk {
        Chunk {
            first,
            end,
            bytes: vec![0; 100].into(),
        }
    }

    fn firsts(tail: &Tail, from: u64, max_bytes: usize) -> Option<Vec<u64>> {
        tail.read(from, max_bytes)
            .map(|chunks| chunks.iter().map(|chunk| chunk.first).collect())
    }

    #[test]
    fn it_holds_the_newest_within_its_limit() {
        let mut tail = Tail::new(350);
        for n in 0..10 {
            tail.push(chunk(n * 5, n * 5 + 5));
        }
        assert_eq!(firsts(&tail, 34, 1000), None);
        assert_eq!(firsts(&tail, 35, 1000), Some(vec![35, 40, 45]));
        assert_eq!(firsts(&tail, 44, 1000), Some(vec![40, 45]));
        assert_eq!(firsts(&tail, 44, 100), Some(vec![40]));
        assert_eq!(firsts(&tail, 44, 1), Some(vec![40]), "one at least");
        assert_eq!(firsts(&tail, 50, 1000), None, "not committed yet");
    }

    #[test]
    fn a_chunk_that_does_not_follow_starts_it_anew() {
        let mut tail = Tail::new(1000);
        tail.push(chunk(0, 5));
        tail.push(chunk(100, 105));
        assert_eq!(firsts(&tail, 0, 1000), None);
        assert_eq!(firsts(&tail, 100, 1000), Some(vec![100]));
    }
}
