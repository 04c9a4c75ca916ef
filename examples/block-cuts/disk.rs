//! A disk's content in memory, of which images are made: only the pieces that hold anything, and
//! shared with its copies until one of them writes.

use std::fs::File;
use std::io::Read;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

const PIECE: usize = 64 << 10;

#[derive(Clone)]
pub(crate) struct Disk {
    pieces: Vec<Option<Arc<[u8]>>>,
}

impl Disk {
    pub(crate) fn read(image: &Path) -> Result<Self, String> {
        let failed = |error| format!("cannot read {}: {error}", image.display());
        let mut file = File::open(image).map_err(failed)?;
        let pieces = (file.metadata().map_err(failed)?.len() as usize).div_ceil(PIECE);
        let mut buffer = vec![0; PIECE];
        let mut disk = Self {
            pieces: vec![None; pieces],
        };
        for piece in &mut disk.pieces {
            file.read_exact(&mut buffer).map_err(failed)?;
            if buffer.iter().any(|byte| *byte != 0) {
                *piece = Some(buffer.clone().into());
            }
        }
        Ok(disk)
    }

    pub(crate) fn write(&mut self, mut offset: usize, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let within = offset % PIECE;
            let (now, rest) = bytes.split_at(bytes.len().min(PIECE - within));
            let piece = self.pieces[offset / PIECE].get_or_insert_with(|| vec![0; PIECE].into());
            Arc::make_mut(piece)[within..within + now.len()].copy_from_slice(now);
            offset += now.len();
            bytes = rest;
        }
    }

    /// Writes it to a new sparse file.
    pub(crate) fn save(&self, image: &Path) {
        let file = File::options()
            .write(true)
            .create(true)
            .truncate(true)
            .open(image)
            .unwrap();
        file.set_len((self.pieces.len() * PIECE) as u64).unwrap();
        for (number, piece) in self.pieces.iter().enumerate() {
            if let Some(piece) = piece {
                file.write_all_at(piece, (number * PIECE) as u64).unwrap();
            }
        }
    }
}
