//! Who a vehicle is: from its client certificate to a device id and a client type.
//!
//! The certificate has been verified before; what is decided here is only whether its issuer and its key usages name a
//! kind of client that the gateway serves. Invariant: an [`Identity`] never comes from a name that the message, and not
//! the certificate, claims, and its device id is 1 to 128 bytes without control characters and without dots.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use thiserror::Error;
use x509_parser::asn1_rs::{BmpString, FromDer as _, Oid, SequenceOf};
use x509_parser::oid_registry::OID_X509_EXT_EXTENDED_KEY_USAGE;
use x509_parser::prelude::{AttributeTypeAndValue, X509Certificate, X509Name};

const MAX_DEVICE_ID: usize = 128;

/// The certificate that a car shows to Wi-Fi networks. Its holder is not a telemetry client.
const WIFI_EAP: &str = "1.3.6.1.4.1.49279.2.5.1.1";
/// Both arcs of client types: engineering and production.
const CLIENT_TYPE_ARCS: [&str; 2] = ["1.3.6.1.4.1.49279.2.4", "1.3.6.1.4.1.49279.2.5"];
const CLIENT_TYPES: [(u8, &str); 8] = [
    (1, "vehicle_device"),
    (11, "vehicle_board_device"),
    (2, "energy_device"),
    (12, "das_device"),
    (14, "vehicle_service"),
    (15, "das_service"),
    (16, "energy_service"),
    (28, "robotics_device"),
];
const DIRECT_ISSUERS: [&str; 2] = ["TeslaMotors", "Tesla Issuing CA"];
const BOARD_ISSUER: &str = "Tesla Motors Products CA";
const BOARD_UNIT: &str = "Tesla Motors SN";
const OID_ISSUERS: [&str; 15] = [
    "Tesla Motors Product Issuing CA",
    "Tesla Motors Product RSA Issuing CA",
    "Tesla Motors GF3 Product Issuing CA",
    "Tesla Motors GF3 Product RSA Issuing CA",
    "Tesla Energy Product Issuing CA",
    "Tesla Energy GF0 Product Issuing CA",
    "Tesla Motors GF0 Product Issuing CA",
    "Tesla Motors GF Austin Product Issuing CA",
    "Tesla Motors GF Berlin Product Issuing CA",
    "Tesla Product Access Issuing CA",
    "Tesla China Product Access Issuing CA",
    "Tesla GF0 Product Access Issuing CA",
    "Tesla GF3 Product Access Issuing CA",
    "Tesla GF Austin Product Access Issuing CA",
    "Tesla GF Berlin Product Access Issuing CA",
];
/// Subject units that say more than the key usage does.
const PRODUCT_UNITS: [(&str, &str); 2] = [
    ("Solar Inverter", "solar_inverter_device"),
    ("Gen3 Wall Connector", "wall_connector_device"),
];

/// Which issuers and key usages stand for which kind of client. The default is the table that vehicles of today need.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IssuerTable {
    direct: BTreeMap<String, Direct>,
    by_usage: BTreeSet<String>,
    usages: BTreeMap<String, Arc<str>>,
}

/// What an issuer that stands for one kind of client says.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Direct {
    client_type: Arc<str>,
    /// Another type for certificates whose first subject unit is this.
    unit: Option<(&'static str, Arc<str>)>,
}

impl Default for IssuerTable {
    fn default() -> Self {
        let vehicle = || Direct {
            client_type: "vehicle_device".into(),
            unit: None,
        };
        let mut direct: BTreeMap<_, _> = DIRECT_ISSUERS
            .into_iter()
            .map(|issuer| (issuer.to_owned(), vehicle()))
            .collect();
        let board = Some((BOARD_UNIT, "vehicle_board_device".into()));
        direct.insert(
            BOARD_ISSUER.to_owned(),
            Direct {
                unit: board,
                ..vehicle()
            },
        );
        let usages = CLIENT_TYPE_ARCS.into_iter().flat_map(|arc| {
            CLIENT_TYPES
                .into_iter()
                .map(move |(last, client_type)| (format!("{arc}.{last}"), client_type.into()))
        });
        Self {
            direct,
            by_usage: OID_ISSUERS.into_iter().map(str::to_owned).collect(),
            usages: usages.collect(),
        }
    }
}

/// Why a key usage cannot be added to an [`IssuerTable`].
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum UsageError {
    /// It is not an object identifier.
    #[error("{0:?} is not an object identifier; write numbers with dots, for example \"1.3.6.1.4.1.49279.2.5.1\"")]
    NotAnOid(String),
    /// It is the one that is refused whatever the table says.
    #[error("{0:?} marks a vehicle's Wi-Fi certificate, which is always refused; remove it")]
    Wifi(String),
}

impl IssuerTable {
    /// Makes an issuer, by its common name, stand for one kind of client, whatever it stood for before.
    pub fn add_issuer(&mut self, common_name: &str, client_type: &str) {
        self.by_usage.remove(common_name);
        self.direct.insert(
            common_name.to_owned(),
            Direct {
                client_type: client_type.into(),
                unit: None,
            },
        );
    }

    /// Has the extended key usages decide for an issuer, by its common name, whatever it stood for before.
    pub fn add_oid_issuer(&mut self, common_name: &str) {
        self.direct.remove(common_name);
        self.by_usage.insert(common_name.to_owned());
    }

    /// Whether certificates of an issuer, by its common name, stand for anybody.
    pub fn knows(&self, common_name: &str) -> bool {
        self.direct.contains_key(common_name) || self.by_usage.contains(common_name)
    }

    /// Makes an extended key usage, in dotted decimal, stand for a kind of client.
    pub fn add_oid(&mut self, oid: &str, client_type: &str) -> Result<(), UsageError> {
        let arcs: Option<Vec<u64>> = oid.split('.').map(|arc| arc.parse().ok()).collect();
        // The round trip also refuses leading zeros and signs, which would never match.
        let parsed = arcs
            .filter(|arcs| arcs.len() >= 2)
            .and_then(|arcs| Oid::from(&arcs).ok());
        if parsed.is_none_or(|parsed| parsed.to_id_string() != oid) {
            return Err(UsageError::NotAnOid(oid.to_owned()));
        }
        if oid == WIFI_EAP {
            return Err(UsageError::Wifi(oid.to_owned()));
        }
        self.usages.insert(oid.to_owned(), client_type.into());
        Ok(())
    }
}

/// Who a certificate says its holder is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// The subject's common name with `-` for every `.`; for a car, its VIN.
    pub device_id: Arc<str>,
    /// The kind of client, such as `vehicle_device`.
    pub client_type: Arc<str>,
    /// `{client type}.{device id}`.
    pub sender_id: Arc<str>,
}

/// Why a certificate names nobody that the gateway serves. Each message is a sentence that may be sent to the client.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum IdentityError {
    /// The certificate cannot be read.
    #[error("the client certificate cannot be read: {0}")]
    Unreadable(String),
    /// The issuer has no common name to look up.
    #[error("the client certificate's issuer has no common name")]
    NamelessIssuer,
    /// The issuer is not in the table.
    #[error("the client certificate's issuer {issuer:?} is not one that this gateway knows a kind of client for")]
    UnknownIssuer {
        /// Its common name.
        issuer: String,
    },
    /// The issuer signs several kinds of client, and no extended key usage says which one this is.
    #[error("the client certificate of issuer {issuer:?} has no extended key usage that names a known kind of client")]
    NoKnownUsage {
        /// The issuer's common name.
        issuer: String,
    },
    /// It is the certificate of a vehicle's Wi-Fi.
    #[error("the client certificate of issuer {issuer:?} is for Wi-Fi networks and not for telemetry")]
    WifiCertificate {
        /// The issuer's common name.
        issuer: String,
    },
    /// The subject has no common name to make a device id of.
    #[error("the client certificate's subject has no common name")]
    NamelessSubject,
    /// The common name cannot be a device id.
    #[error("the client certificate's common name {0}")]
    UnusableName(&'static str),
}

/// Who the holder of a verified certificate is.
pub fn identify(leaf_der: &[u8], table: &IssuerTable) -> Result<Identity, IdentityError> {
    let (_, certificate) =
        X509Certificate::from_der(leaf_der).map_err(|error| IdentityError::Unreadable(error.to_string()))?;
    let issuer = common_name(certificate.issuer()).ok_or(IdentityError::NamelessIssuer)?;
    let client_type = client_type(&certificate, issuer, table)?;
    let device_id: Arc<str> = device_id(certificate.subject())?.into();
    let sender_id = format!("{client_type}.{device_id}").into();
    Ok(Identity {
        device_id,
        client_type,
        sender_id,
    })
}

fn client_type(
    certificate: &X509Certificate<'_>,
    issuer: String,
    table: &IssuerTable,
) -> Result<Arc<str>, IdentityError> {
    if let Some(direct) = table.direct.get(&issuer) {
        let first_unit = units(certificate.subject()).next();
        return Ok(match &direct.unit {
            Some((unit, client_type)) if first_unit.as_deref() == Some(unit) => client_type.clone(),
            _ => direct.client_type.clone(),
        });
    }
    if !table.by_usage.contains(&issuer) {
        return Err(IdentityError::UnknownIssuer { issuer });
    }
    for usage in extended_key_usages(certificate)? {
        if usage == WIFI_EAP {
            return Err(IdentityError::WifiCertificate { issuer });
        }
        if let Some(client_type) = table.usages.get(&usage) {
            let product =
                units(certificate.subject()).find_map(|unit| PRODUCT_UNITS.into_iter().find(|(name, _)| *name == unit));
            return Ok(product.map_or_else(|| client_type.clone(), |(_, product)| product.into()));
        }
    }
    Err(IdentityError::NoKnownUsage { issuer })
}

/// Extended key usages in the certificate's own order, which `x509-parser`'s parsed form does not keep.
fn extended_key_usages(certificate: &X509Certificate<'_>) -> Result<Vec<String>, IdentityError> {
    let unreadable = |error: String| IdentityError::Unreadable(format!("extended key usage: {error}"));
    let extension = certificate
        .get_extension_unique(&OID_X509_EXT_EXTENDED_KEY_USAGE)
        .map_err(|error| unreadable(error.to_string()))?;
    let Some(extension) = extension else {
        return Ok(Vec::new());
    };
    let (_, usages) =
        SequenceOf::<Oid<'_>>::from_der(extension.value).map_err(|error| unreadable(error.to_string()))?;
    Ok(usages.iter().map(Oid::to_id_string).collect())
}

fn device_id(subject: &X509Name<'_>) -> Result<String, IdentityError> {
    let name = common_name(subject)
        .filter(|name| !name.is_empty())
        .ok_or(IdentityError::NamelessSubject)?;
    if name.len() > MAX_DEVICE_ID {
        return Err(IdentityError::UnusableName("is longer than 128 bytes"));
    }
    if name.chars().any(char::is_control) {
        return Err(IdentityError::UnusableName("has control characters in it"));
    }
    Ok(name.replace('.', "-"))
}

/// The last common name where there are several: what consumers have been given so far.
fn common_name(name: &X509Name<'_>) -> Option<String> {
    name.iter_common_name().filter_map(text).last()
}

fn units(name: &X509Name<'_>) -> impl Iterator<Item = String> {
    name.iter_organizational_unit().filter_map(text)
}

fn text(attribute: &AttributeTypeAndValue<'_>) -> Option<String> {
    let value = attribute.attr_value();
    match attribute.as_str() {
        Ok(text) => Some(text.to_owned()),
        // Old authorities write names as UTF-16, or as Teletex strings, of which ASCII is the part everybody agrees on.
        Err(_) => BmpString::try_from(value.clone())
            .map(|text| text.string())
            .ok()
            .or_else(|| {
                let teletex = value.tag() == x509_parser::asn1_rs::Tag::TeletexString && value.data.is_ascii();
                teletex.then(|| String::from_utf8_lossy(value.data).into_owned())
            }),
    }
}
