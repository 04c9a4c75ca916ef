//! The file of a log: whole lines, each on the disk under the file's name before it counts as written.
//!
//! Whoever rotates logs may move the file away and remove it at any moment; a full disk takes a part of what is written.

use std::fs::File;
use std::io::{Error, ErrorKind, Result, Write};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};

/// Moves in a row after which the writing is given up for now.
const MOVES: usize = 8;

/// A file that lines are appended to.
pub(super) struct LogFile {
    path: PathBuf,
    file: File,
}

/// What became of lines: these bytes of whole lines are on the disk, and why the rest is not.
#[derive(Debug)]
pub(super) struct Written {
    pub(super) bytes: usize,
    pub(super) result: Result<()>,
}

impl LogFile {
    pub(super) fn open(path: &Path) -> Result<Self> {
        Ok(Self {
            path: path.to_owned(),
            file: open(path)?,
        })
    }

    /// Appends whole lines to the file that has the name, and looks afterwards whether it still has: a line in one that was
    /// moved meanwhile may be gone, and is written again.
    pub(super) fn append(&mut self, lines: &[u8]) -> Written {
        for _ in 0..MOVES {
            if let Err(error) = self.follow() {
                return nothing(error);
            }
            let written = append(&self.file, lines);
            match self.has_its_name() {
                Ok(true) => return written,
                Ok(false) => {}
                Err(error) => return nothing(error),
            }
        }
        let path = self.path.display();
        nothing(Error::other(format!(
            "{path} is moved or removed each time it is written; rotate it less often"
        )))
    }

    /// Goes on in the file that has the name now.
    fn follow(&mut self) -> Result<()> {
        if !self.has_its_name()? {
            self.file = open(&self.path)?;
        }
        Ok(())
    }

    /// Whether the name still leads to this file. Pipes and devices stay what they are.
    fn has_its_name(&self) -> Result<bool> {
        let ours = self.file.metadata()?;
        if !ours.is_file() {
            return Ok(true);
        }
        match std::fs::metadata(&self.path) {
            Ok(found) => Ok((found.dev(), found.ino()) == (ours.dev(), ours.ino())),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error),
        }
    }
}

/// The file, for appending whole lines: what a crash cut off stays a line of its own, and the record comes again.
fn open(path: &Path) -> Result<File> {
    let mut file = File::options().create(true).append(true).read(true).open(path)?;
    let mut last = [b'\n'];
    if let Some(at) = file.metadata()?.len().checked_sub(1)
        && file.metadata()?.is_file()
    {
        file.read_exact_at(&mut last, at)?;
    }
    if last != [b'\n'] {
        file.write_all(b"\n")?;
    }
    Ok(file)
}

fn nothing(error: Error) -> Written {
    Written {
        bytes: 0,
        result: Err(error),
    }
}

fn append(mut file: &File, lines: &[u8]) -> Written {
    let before = match file.metadata() {
        Ok(found) => found.is_file().then_some(found.len()),
        Err(error) => return nothing(error),
    };
    let Some(before) = before else {
        return match file.write_all(lines).and_then(|()| sync(file)) {
            Ok(()) => Written {
                bytes: lines.len(),
                result: Ok(()),
            },
            Err(error) => nothing(error),
        };
    };
    let (taken, result) = write_what_fits(file, lines);
    // A part of a line is of no use to anybody, and would take the room of the next attempt.
    let whole = memchr::memrchr(b'\n', &lines[..taken]).map_or(0, |last| last + 1);
    let cut = match whole < taken {
        true => cut_back(file, before, taken, whole),
        false => Ok(()),
    };
    if let Err(error) = cut.and_then(|()| sync(file)) {
        // It comes again, and is not to be there twice if that can be helped.
        return nothing(match cut_back(file, before, whole, 0) {
            Ok(()) => error,
            Err(also) => Error::new(error.kind(), format!("{error}, and what was written stays: {also}")),
        });
    }
    Written { bytes: whole, result }
}

/// How many bytes the file took, and why not more.
fn write_what_fits(mut file: &File, lines: &[u8]) -> (usize, Result<()>) {
    let mut taken = 0;
    while taken < lines.len() {
        match file.write(&lines[taken..]) {
            Ok(0) => return (taken, Err(ErrorKind::WriteZero.into())),
            Ok(more) => taken += more,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return (taken, Err(error)),
        }
    }
    (taken, Ok(()))
}

/// Cuts a file off behind the first `keep` of the `taken` bytes that were appended to it, unless somebody else has changed it
/// since.
fn cut_back(file: &File, before: u64, taken: usize, keep: usize) -> Result<()> {
    match file.metadata()?.len() == before + taken as u64 {
        true => file.set_len(before + keep as u64),
        false => Ok(()),
    }
}

fn sync(file: &File) -> Result<()> {
    match file.sync_data() {
        // A pipe or a device has nothing to sync.
        Err(error) if error.kind() == ErrorKind::InvalidInput => Ok(()),
        synced => synced,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::collections::BTreeSet;
    use std::fs;
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::time::Duration;

    use super::*;

    /// A rotator that moves the file, sends what is in it somewhere, and removes it: in that order, as all do.
    #[test]
    fn no_line_that_counts_as_written_is_in_a_file_that_was_read_before() {
        let dir = tempfile::tempdir().unwrap();
        let (path, old) = (dir.path().join("records.jsonl"), dir.path().join("records.jsonl.1"));
        let mut file = LogFile::open(&path).unwrap();
        let over = AtomicBool::new(false);
        let (written, mut found) = std::thread::scope(|scope| {
            let rotator = scope.spawn(|| {
                let mut found = String::new();
                while !over.load(Ordering::Relaxed) {
                    if fs::rename(&path, &old).is_ok() {
                        found += &fs::read_to_string(&old).unwrap();
                        fs::remove_file(&old).unwrap();
                    }
                    std::thread::sleep(Duration::from_micros(300));
                }
                found
            });
            let mut written = BTreeSet::new();
            for number in 0..400 {
                let line = format!("{number}\n");
                if file.append(line.as_bytes()).result.is_ok() {
                    written.insert(line.trim_end().to_owned());
                }
            }
            over.store(true, Ordering::Relaxed);
            (written, rotator.join().unwrap())
        });
        found += &fs::read_to_string(&path).unwrap_or_default();
        let found: BTreeSet<String> = found.lines().map(str::to_owned).collect();
        let lost = written.difference(&found).count();
        assert!(written.len() > 50 && lost == 0, "{lost} of {}", written.len());
    }

    #[test]
    fn lines_go_to_what_is_no_file() {
        let written = LogFile::open(Path::new("/dev/null")).unwrap().append(b"one\ntwo\n");
        assert!(written.bytes == 8 && written.result.is_ok(), "{written:?}");
        let written = LogFile::open(Path::new("/dev/full")).unwrap().append(b"one\n");
        assert!(written.bytes == 0 && written.result.is_err(), "{written:?}");
    }
}
