//! What one destination is to be sent: by its routes, of which vehicles, and of each record which data in which form.
//!
//! Invariant: a payload that is handed to a destination has come through here, so what is filtered out never leaves.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;

use crate::config::{self, DestinationKind, RecordFormat, Routes, VinList};
use crate::record::Record;
use crate::record::json::{self, JsonError};
use crate::record::payload::{self, FieldFilter};

/// One destination's rules.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rules {
    name: String,
    by_type: BTreeMap<String, bool>,
    other_types: bool,
    allow: Option<BTreeSet<Arc<str>>>,
    deny: BTreeSet<Arc<str>>,
    fields: FieldFilter,
    format: RecordFormat,
    /// Whether what cannot be decoded is shown all the same, as a log does.
    shows_all: bool,
    pub(super) flow: config::Flow,
}

/// Why there are none.
#[derive(Debug, thiserror::Error)]
pub enum RulesError {
    /// A list of vehicles cannot be read.
    #[error(
        "destination {destination:?}: vins.{key}: cannot read {}: {source}; make it, with a VIN in each line, and let the gateway read it",
        path.display()
    )]
    Unreadable {
        /// The destination.
        destination: String,
        /// `allow_file` or `deny_file`.
        key: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A line of it is no VIN.
    #[error("destination {destination:?}: vins.{key}: {}:{line}: {text:?} {why}", path.display())]
    NoVin {
        /// The destination.
        destination: String,
        /// `allow_file` or `deny_file`.
        key: &'static str,
        /// The file.
        path: PathBuf,
        /// From 1.
        line: usize,
        /// What it says.
        text: String,
        /// What is wrong with that.
        why: &'static str,
    },
    /// A list of those that are allowed is empty, which is what a file that is being written looks like.
    #[error("destination {destination:?}: vins.allow_file: {} names no VIN, so that nothing would ever be sent; name some, or write pause = true", path.display())]
    Nobody {
        /// The destination.
        destination: String,
        /// The file.
        path: PathBuf,
    },
}

impl RulesError {
    fn nobody(destination: &str, list: &VinList) -> Self {
        Self::Nobody {
            destination: destination.to_owned(),
            path: list.file.clone().unwrap_or_default(),
        }
    }
}

impl Rules {
    /// A destination's rules; its lists of vehicles are read.
    pub fn new(routes: &Routes, destination: &config::Destination) -> Result<Self, RulesError> {
        let name = &destination.name;
        let has = |names: &BTreeSet<String>| names.contains(name);
        let delivery = &destination.delivery;
        let allow = delivery.vins.allow.as_ref();
        Ok(Self {
            name: name.clone(),
            by_type: routes
                .by_type
                .iter()
                .map(|(record_type, names)| (record_type.clone(), has(names)))
                .collect(),
            other_types: has(&routes.others),
            allow: match allow {
                Some(list) => match load(name, "allow_file", list)? {
                    nobody if nobody.is_empty() => return Err(RulesError::nobody(name, list)),
                    vins => Some(vins),
                },
                None => None,
            },
            deny: load(name, "deny_file", &delivery.vins.deny)?,
            fields: delivery.fields.clone(),
            format: delivery.format,
            shows_all: matches!(destination.kind, DestinationKind::Log(_)),
            flow: delivery.flow.clone(),
        })
    }

    /// Whether a record is for this destination.
    pub(super) fn want(&self, record: &Record) -> bool {
        let routed = match &record.only {
            Some(only) => **only == *self.name,
            None => *self.by_type.get(&*record.record_type).unwrap_or(&self.other_types),
        };
        let allowed = self.allow.as_ref().is_none_or(|vins| vins.contains(&record.vin));
        routed && allowed && !self.deny.contains(&record.vin)
    }

    /// What the destination is sent of a record that is for it, made in `room`; `None` when nothing of it is. `Err` says
    /// why its form cannot be made.
    pub(super) fn payload<'a>(&self, record: &'a Record, room: &'a mut Room) -> Result<Option<&'a [u8]>, String> {
        let Room {
            transformed,
            selected,
            text,
        } = room;
        let record_type = &record.record_type;
        let transformed = payload::transform(record_type, &record.vin, &record.payload, transformed);
        let selected = transformed.and_then(|payload| self.fields.select(record_type, payload, selected));
        let selected = match selected {
            Ok(Some(selected)) => selected,
            Ok(None) => return Ok(None),
            Err(_) if self.shows_all && self.fields == FieldFilter::All => &record.payload,
            Err(error) => return Err(error.to_string()),
        };
        match self.format {
            RecordFormat::Protobuf => Ok(Some(selected)),
            RecordFormat::Json => match json::decoded(record_type, selected) {
                Ok(decoded) => {
                    *text = decoded;
                    Ok(Some(text.as_bytes()))
                }
                // As it came, like behind the reference server: nobody here knows what is in it.
                Err(JsonError::NotDecodable(_)) => Ok(Some(selected)),
                Err(error) => Err(error.to_string()),
            },
        }
    }
}

/// Where payloads are made, one after the other.
#[derive(Default)]
pub(super) struct Room {
    transformed: Vec<u8>,
    selected: Vec<u8>,
    text: String,
}

/// A list of vehicles with what its file says: a VIN in each line, and what is behind a `#` is a comment.
fn load(destination: &str, key: &'static str, list: &VinList) -> Result<BTreeSet<Arc<str>>, RulesError> {
    let mut vins: BTreeSet<Arc<str>> = list.vins.iter().map(|vin| Arc::from(vin.as_str())).collect();
    let Some(path) = &list.file else { return Ok(vins) };
    let text = std::fs::read_to_string(path).map_err(|source| RulesError::Unreadable {
        destination: destination.to_owned(),
        key,
        path: path.clone(),
        source,
    })?;
    for (at, line) in text.lines().enumerate() {
        let vin = line.split('#').next().unwrap_or_default().trim();
        if vin.is_empty() {
            continue;
        }
        if let Some(why) = config::no_device_id(vin) {
            return Err(RulesError::NoVin {
                destination: destination.to_owned(),
                key,
                path: path.clone(),
                line: at + 1,
                text: vin.to_owned(),
                why,
            });
        }
        if let Some(meant) = config::vin_meant(vin) {
            tracing::warn!(destination, path = %path.display(), line = at + 1,
                "{vin:?} is in lower case, and certificates have VINs in upper case; write {meant:?}");
        }
        vins.insert(vin.into());
    }
    Ok(vins)
}
