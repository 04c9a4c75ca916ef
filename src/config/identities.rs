//! The `[identity]` section: what it adds to the built-in table of certificate issuers.
//!
//! Invariant: no issuer is said to stand for one kind of client and for several at once.

use std::collections::BTreeSet;

use super::reader::{Field, Table};
use crate::record::identity::IssuerTable;

/// The built-in table with what the section adds.
pub(super) fn read(table: &Table<'_>) -> IssuerTable {
    let mut identities = IssuerTable::default();
    let issuers = table.table("issuers");
    for (issuer, field) in issuers.entries() {
        if let Some(client_type) = client_type(&field) {
            identities.add_issuer(issuer, client_type);
        }
    }
    let direct: BTreeSet<&str> = issuers.entries().map(|(issuer, _)| issuer).collect();
    for (issuer, element) in table.field("oid_issuers").iter().flat_map(Field::strings) {
        if direct.contains(issuer) {
            element.refuse("is also in identity.issuers; leave it in one of the two");
        }
        identities.add_oid_issuer(issuer);
    }
    for (oid, field) in table.table("oids").entries() {
        let Some(client_type) = client_type(&field) else {
            continue;
        };
        if let Err(error) = identities.add_oid(oid, client_type) {
            field.mistake(error);
        }
    }
    table.finish();
    identities
}

fn client_type<'d>(field: &Field<'d>) -> Option<&'d str> {
    let name = field.string()?;
    let usable = (1..=64).contains(&name.len())
        && name
            .bytes()
            .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_');
    if !usable {
        field.refuse("is not a client type; write 1 to 64 of the characters a-z 0-9 _, for example \"vehicle_device\"");
    }
    Some(name).filter(|_| usable)
}
