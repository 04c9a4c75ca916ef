//! Files that hold one secret: a password, without the line end that an editor leaves behind it.
//!
//! Invariant: what stands in such a file is never part of a message.

use std::io;
use std::path::Path;

use super::paths::{Base, is_credential};
use super::reader::Field;

/// The secret in a file.
pub(crate) fn read(path: &Path) -> io::Result<String> {
    let text = std::fs::read_to_string(path)?;
    let line = text.strip_suffix('\n').unwrap_or(&text);
    Ok(line.strip_suffix('\r').unwrap_or(line).to_owned())
}

/// What to do about a file that [`read`] could not read.
pub(crate) fn unreadable(path: &Path, error: &io::Error) -> String {
    let advice = match is_credential(path) {
        true => "it is there only while the service runs, if LoadCredential= in the unit names it",
        false => "write the password into it, and let the gateway read it",
    };
    format!("cannot read {}: {error}; {advice}", path.display())
}

/// The same for a file that the configuration names: a mistake if it cannot be read, unless it may be missing.
pub(super) fn checked(field: &Field<'_>, path: &Path, base: Base<'_>) -> Option<String> {
    match read(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound && base.spares(path) => Some(String::new()),
        read => read.map_err(|error| field.mistake(unreadable(path, &error))).ok(),
    }
}
