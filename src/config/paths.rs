//! The paths of a configuration: what relative ones start in, and which are credentials that systemd hands to the service.
//!
//! Invariant: every path that the configuration names goes through here, so that `check` can look at all of them.

use std::cell::RefCell;
use std::path::{Path, PathBuf};

use super::reader::Field;

/// Where paths are made whole.
#[derive(Clone, Copy)]
pub(super) struct Base<'p> {
    /// What relative ones start in: the configuration file's own directory.
    dir: &'p Path,
    named: &'p RefCell<Vec<(String, PathBuf)>>,
    /// Whether secrets have to be there.
    delivers: bool,
}

/// What a path begins with that is the name of a credential which systemd hands to the service (`LoadCredential=`).
const CREDENTIAL: &str = "credential:";
/// Where systemd puts those of the service, for commands that are run beside it.
const SERVICES_CREDENTIALS: &str = "/run/credentials/waystation.service";

/// Whether a file is one of the service's credentials, as others see it.
pub(crate) fn is_credential(path: &Path) -> bool {
    path.starts_with(SERVICES_CREDENTIALS)
}

impl<'p> Base<'p> {
    /// For a configuration file; what it names is added to `named`, with its key.
    pub(super) fn new(config: &'p Path, named: &'p RefCell<Vec<(String, PathBuf)>>, delivers: bool) -> Self {
        let dir = config.parent().unwrap_or(Path::new(""));
        Self { dir, named, delivers }
    }

    pub(super) fn path(self, field: &Field<'_>) -> Option<PathBuf> {
        let path = self.whole(field)?;
        self.named.borrow_mut().push((field.key().to_owned(), path.clone()));
        Some(path)
    }

    /// Whether a file may be missing: a credential of the service, for who does without.
    pub(super) fn spares(self, path: &Path) -> bool {
        !self.delivers && is_credential(path)
    }

    fn whole(self, field: &Field<'_>) -> Option<PathBuf> {
        let text = field.text()?;
        let Some(name) = text.strip_prefix(CREDENTIAL) else {
            return Some(self.dir.join(text));
        };
        if name.is_empty() || name.contains('/') {
            field.refuse("is not a credential; write \"credential:NAME\", with the name in LoadCredential=NAME:FILE");
            return None;
        }
        let folder = std::env::var_os("CREDENTIALS_DIRECTORY").unwrap_or_else(|| SERVICES_CREDENTIALS.into());
        Some(Path::new(&folder).join(name))
    }
}
