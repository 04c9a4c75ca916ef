//! Files that hold a secret: a password, without the line end that an editor leaves behind it, or a key.
//!
//! Invariant: what stands in such a file is never part of a message.

use std::io;
use std::path::Path;

use rustls::pki_types::pem;

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

/// What is wrong with a file in PEM form. The parser's own words hold a line of it, which may be all of a key.
pub(crate) fn pem_fault(error: &pem::Error) -> String {
    match error {
        pem::Error::MissingSectionEnd { .. } => {
            "a \"-----BEGIN …-----\" has no END, or what is between them is not in lines of its own".to_owned()
        }
        pem::Error::IllegalSectionStart { .. } => "a \"-----BEGIN …-----\" in it is cut off".to_owned(),
        pem::Error::Base64Decode(_) => "what is between \"-----BEGIN …-----\" and its END is not base64".to_owned(),
        pem::Error::NoItemsFound => "what is looked for is not in it".to_owned(),
        pem::Error::Io(error) => error.to_string(),
        _ => "it cannot be read".to_owned(),
    }
}

/// The same for a file that the configuration names: a mistake if it cannot be read, unless it may be missing.
pub(super) fn checked(field: &Field<'_>, path: &Path, base: Base<'_>) -> Option<String> {
    match read(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound && base.spares(path) => Some(String::new()),
        read => read.map_err(|error| field.mistake(unreadable(path, &error))).ok(),
    }
}
