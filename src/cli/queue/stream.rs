//! Outputs that are no files: standard output, a pipe, a device. Nothing is made for them, and nothing is gone on with.

use std::fs::File;
use std::io::{self, Write};
use std::path::Path;

use super::QueueError;

/// Opens it, if a path names such a one.
pub(super) fn open(path: &Path) -> Result<Option<Box<dyn Write>>, QueueError> {
    // Standard output may be a file with something in it already, which opening it by its name would write over.
    if [Path::new("-"), Path::new("/dev/stdout")].contains(&path) {
        return Ok(Some(Box::new(io::stdout())));
    }
    match path.metadata() {
        Ok(found) if !found.is_file() && !found.is_dir() => {
            let opened = File::options().write(true).open(path);
            let opened = opened.map_err(|source| QueueError::Output {
                path: path.to_owned(),
                source,
            })?;
            Ok(Some(Box::new(opened)))
        }
        _ => Ok(None),
    }
}
