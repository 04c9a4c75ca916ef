//! How a batch is cut into rows, and as many of them are read as are asked for.
//!
//! Invariant: every frame is in one chunk, in order, and a chunk leaves little of the page empty that redb gives it: pages
//! are powers of two, and what is empty is written to the disk all the same.

use bytes::Bytes;

use super::segment::{CHUNK_BYTES, Chunk, RawChunk};

/// Below this a row shares its page with others.
const SMALLEST_PAGE: usize = 4_096;
/// What a page holds beside its one row.
const OVERHEAD: usize = 64;

/// Chunks of the frames that end at `ends`; the first has the number `first`.
pub(super) fn cut(first: u64, frames: Bytes, ends: &[usize]) -> Vec<Chunk> {
    let mut chunks = Vec::new();
    let (mut from, mut done) = (0, 0);
    while done < ends.len() {
        let room = room_for(frames.len() - from);
        // One at least, however long it is.
        let fit = ends[done..].partition_point(|end| end - from <= room).max(1);
        let end = ends[done + fit - 1];
        chunks.push(Chunk {
            first: first + done as u64,
            end: first + (done + fit) as u64,
            bytes: frames.slice(from..end),
        });
        (from, done) = (end, done + fit);
    }
    chunks
}

/// As they are read: up to so many bytes of them, but one at least.
pub(super) fn up_to<'a>(chunks: impl Iterator<Item = &'a Chunk>, max_bytes: usize) -> impl Iterator<Item = RawChunk> {
    let mut total = 0;
    let wanted = chunks.take_while(move |chunk| {
        let is_first = total == 0;
        total += chunk.bytes.len();
        is_first || total <= max_bytes
    });
    wanted.map(|chunk| RawChunk {
        first: chunk.first,
        bytes: chunk.bytes.clone(),
    })
}

/// One more than the last number by the frames' lengths alone.
pub(crate) fn count_unchecked(raw: &RawChunk) -> u64 {
    raw.first + frame_ends(&raw.bytes).len() as u64
}

/// Where each frame ends, by their lengths alone.
pub(super) fn frame_ends(frames: &[u8]) -> Vec<usize> {
    let mut ends = Vec::new();
    let mut rest = frames;
    while let Some((length, after)) = rest.split_first_chunk::<4>() {
        rest = after
            .get(8 + u32::from_le_bytes(*length) as usize..)
            .unwrap_or_default();
        ends.push(frames.len() - rest.len());
    }
    ends
}

/// How long a chunk may be when so much is left: what fills a page, and leaves the rest for smaller ones.
fn room_for(left: usize) -> usize {
    let largest = CHUNK_BYTES.next_power_of_two();
    if left + OVERHEAD >= largest {
        return largest - OVERHEAD;
    }
    let page = (left + OVERHEAD).next_power_of_two();
    // Three quarters full is full enough: a row more costs as much.
    match page <= SMALLEST_PAGE || left + OVERHEAD > page / 4 * 3 {
        true => left,
        false => page / 2 - OVERHEAD,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The lengths of the chunks of so many frames of this length.
    fn lengths(frames: usize, length: usize) -> Vec<usize> {
        let ends: Vec<_> = (1..=frames).map(|frame| frame * length).collect();
        let chunks = cut(7, vec![0; frames * length].into(), &ends);
        let mut number = 7;
        for chunk in &chunks {
            assert_eq!(chunk.first, number);
            assert_eq!(chunk.bytes.len(), (chunk.end - chunk.first) as usize * length);
            number = chunk.end;
        }
        assert_eq!(number, 7 + frames as u64);
        chunks.iter().map(|chunk| chunk.bytes.len()).collect()
    }

    #[test]
    fn what_fits_into_one_page_is_one_chunk() {
        assert_eq!(lengths(0, 700), [0; 0]);
        assert_eq!(lengths(1, 700), [700]);
        assert_eq!(lengths(5, 700), [3_500]);
        assert_eq!(lengths(90, 700), [63_000]);
    }

    #[test]
    fn no_page_is_left_half_empty() {
        for frames in 1..2_000 {
            let pages: usize = lengths(frames, 700)
                .iter()
                .map(|length| (length + OVERHEAD).next_power_of_two().max(SMALLEST_PAGE))
                .sum();
            let bytes = frames * 700;
            assert!(
                pages <= (bytes * 4).div_ceil(3) + SMALLEST_PAGE,
                "{frames}: {pages} for {bytes}"
            );
        }
        let large: usize = lengths(2_000, 700)
            .iter()
            .map(|length| (length + OVERHEAD).next_power_of_two())
            .sum();
        assert!(large * 100 <= 2_000 * 700 * 103, "{large}");
    }

    #[test]
    fn a_frame_that_is_longer_than_any_page_is_a_chunk_of_its_own() {
        assert_eq!(lengths(3, 900_000), [900_000; 3]);
    }
}
