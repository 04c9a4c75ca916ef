//! Who a certificate says its holder is: every row of the built-in table, what refuses, and what configuration adds.
#![allow(clippy::unwrap_used)]

#[path = "support/certificates.rs"]
mod certificates;

use std::path::Path;

use certificates::{authority_params, usage, vehicle};

use rcgen::{
    CertificateParams, CustomExtension, DistinguishedName, DnType, DnValue, ExtendedKeyUsagePurpose, Issuer, KeyPair,
};
use waystation::record::identity::{Identity, IdentityError, IssuerTable, identify};

const VIN: &str = "5YJ3E1EA7KF000001";
const WIFI: &str = "1.3.6.1.4.1.49279.2.5.1.1";
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
const OIDS: [(&str, &str); 8] = [
    ("1", "vehicle_device"),
    ("11", "vehicle_board_device"),
    ("2", "energy_device"),
    ("12", "das_device"),
    ("14", "vehicle_service"),
    ("15", "das_service"),
    ("16", "energy_service"),
    ("28", "robotics_device"),
];

/// Signs certificates under any issuer's name; whether the signature is worth anything is not decided here.
struct Signer {
    key: KeyPair,
}

impl Signer {
    fn new() -> Self {
        Self {
            key: KeyPair::generate().unwrap(),
        }
    }

    fn identify(&self, issuer: &str, params: &CertificateParams) -> Result<Identity, IdentityError> {
        self.identify_with(issuer, params, &IssuerTable::default())
    }

    fn identify_with(
        &self,
        issuer: &str,
        params: &CertificateParams,
        table: &IssuerTable,
    ) -> Result<Identity, IdentityError> {
        let issuer_params = authority_params(issuer);
        let issuer = Issuer::from_params(&issuer_params, &self.key);
        identify(params.signed_by(&self.key, &issuer).unwrap().der(), table)
    }

    fn client_type(&self, issuer: &str, params: &CertificateParams) -> String {
        self.identify(issuer, params).unwrap().client_type.to_string()
    }
}

fn with_unit(usages: &[ExtendedKeyUsagePurpose], unit: &str) -> CertificateParams {
    let mut params = vehicle(usages);
    params.distinguished_name.push(DnType::OrganizationalUnitName, unit);
    params
}

/// A subject whose attributes may repeat, which rcgen's own names cannot: written here as DER and spliced in.
fn with_subject(issuer: &str, attributes: &[(u8, &str)]) -> Vec<u8> {
    let tlv = |tag: u8, content: &[u8]| {
        assert!(content.len() < 128);
        [&[tag, u8::try_from(content.len()).unwrap()], content].concat()
    };
    let rdns: Vec<u8> = attributes
        .iter()
        .flat_map(|(kind, value)| {
            let attribute = [tlv(6, &[0x55, 4, *kind]), tlv(12, value.as_bytes())].concat();
            tlv(0x31, &tlv(0x30, &attribute))
        })
        .collect();
    // A placeholder as long as what replaces it keeps every length of the certificate right.
    let placeholder = "x".repeat(rdns.len() - 11);
    let mut params = vehicle(&[]);
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, placeholder.as_str());
    let key = KeyPair::generate().unwrap();
    let issuer_params = authority_params(issuer);
    let der = params
        .signed_by(&key, &Issuer::from_params(&issuer_params, &key))
        .unwrap()
        .der()
        .to_vec();
    let old = tlv(
        0x31,
        &tlv(0x30, &[tlv(6, &[0x55, 4, 3]), tlv(12, placeholder.as_bytes())].concat()),
    );
    assert_eq!(old.len(), rdns.len());
    let start = der.windows(old.len()).position(|window| window == old).unwrap();
    [&der[..start], &rdns, &der[start + old.len()..]].concat()
}

const COMMON_NAME: u8 = 3;
const UNIT: u8 = 11;

#[test]
fn the_issuers_of_cars_stand_for_vehicle_device() {
    let signer = Signer::new();
    for issuer in ["TeslaMotors", "Tesla Issuing CA", "Tesla Motors Products CA"] {
        let identity = signer.identify(issuer, &vehicle(&[])).unwrap();
        assert_eq!(&*identity.device_id, VIN, "{issuer}");
        assert_eq!(&*identity.client_type, "vehicle_device", "{issuer}");
        assert_eq!(&*identity.sender_id, format!("vehicle_device.{VIN}"), "{issuer}");
    }
}

#[test]
fn a_board_is_told_by_its_first_unit_and_only_under_its_own_issuer() {
    let signer = Signer::new();
    let board = with_unit(&[], "Tesla Motors SN");
    assert_eq!(
        signer.client_type("Tesla Motors Products CA", &board),
        "vehicle_board_device"
    );
    assert_eq!(
        signer.client_type("Tesla Motors Products CA", &with_unit(&[], "Tesla Motors")),
        "vehicle_device"
    );
    assert_eq!(signer.client_type("TeslaMotors", &board), "vehicle_device");
    let table = IssuerTable::default();
    let first = with_subject(
        "Tesla Motors Products CA",
        &[(COMMON_NAME, VIN), (UNIT, "Tesla Motors SN"), (UNIT, "b")],
    );
    assert_eq!(&*identify(&first, &table).unwrap().client_type, "vehicle_board_device");
    let second = with_subject(
        "Tesla Motors Products CA",
        &[(COMMON_NAME, VIN), (UNIT, "a"), (UNIT, "Tesla Motors SN")],
    );
    assert_eq!(&*identify(&second, &table).unwrap().client_type, "vehicle_device");
}

#[test]
fn under_every_oid_issuer_every_known_usage_names_its_client_type() {
    let signer = Signer::new();
    for issuer in OID_ISSUERS {
        for arc in ["4", "5"] {
            for (last, client_type) in OIDS {
                let oid = usage(&format!("1.3.6.1.4.1.49279.2.{arc}.{last}"));
                let usages = [ExtendedKeyUsagePurpose::ClientAuth, oid];
                assert_eq!(
                    signer.client_type(issuer, &vehicle(&usages)),
                    client_type,
                    "{issuer} {arc}.{last}"
                );
                let units = [
                    ("Solar Inverter", "solar_inverter_device"),
                    ("Gen3 Wall Connector", "wall_connector_device"),
                    ("Motors", client_type),
                ];
                for (unit, expected) in units {
                    assert_eq!(
                        signer.client_type(issuer, &with_unit(&usages, unit)),
                        expected,
                        "{issuer} {unit}"
                    );
                }
            }
        }
    }
}

#[test]
fn a_product_unit_counts_wherever_it_stands_but_not_without_a_known_usage() {
    let signer = Signer::new();
    let refused = signer.identify(
        OID_ISSUERS[4],
        &with_unit(&[ExtendedKeyUsagePurpose::ClientAuth], "Solar Inverter"),
    );
    assert_eq!(
        refused,
        Err(IdentityError::NoKnownUsage {
            issuer: OID_ISSUERS[4].to_owned()
        })
    );
    assert_eq!(
        signer.client_type("TeslaMotors", &with_unit(&[], "Solar Inverter")),
        "vehicle_device"
    );
}

#[test]
fn the_first_known_usage_in_the_certificates_order_decides() {
    let signer = Signer::new();
    let (device, energy, unknown) = (
        usage("1.3.6.1.4.1.49279.2.5.1"),
        usage("1.3.6.1.4.1.49279.2.5.2"),
        usage("1.3.6.1.4.1.49279.2.5.99"),
    );
    let issuer = OID_ISSUERS[0];
    assert_eq!(
        signer.client_type(issuer, &vehicle(&[unknown.clone(), device.clone(), energy.clone()])),
        "vehicle_device"
    );
    assert_eq!(
        signer.client_type(issuer, &vehicle(&[energy, device, unknown])),
        "energy_device"
    );
}

#[test]
fn a_wifi_certificate_is_refused_if_that_usage_comes_first() {
    let signer = Signer::new();
    let device = usage("1.3.6.1.4.1.49279.2.5.1");
    for issuer in OID_ISSUERS {
        let refused = signer.identify(
            issuer,
            &vehicle(&[ExtendedKeyUsagePurpose::ClientAuth, usage(WIFI), device.clone()]),
        );
        assert_eq!(
            refused,
            Err(IdentityError::WifiCertificate {
                issuer: issuer.to_owned()
            })
        );
        assert_eq!(
            signer.client_type(issuer, &vehicle(&[device.clone(), usage(WIFI)])),
            "vehicle_device"
        );
    }
}

#[test]
fn without_a_known_usage_an_oid_issuer_names_nobody() {
    let signer = Signer::new();
    let neighbours = [
        "1.3.6.1.4.1.49279.2.5.3",
        "1.3.6.1.4.1.49279.2.6.1",
        "1.3.6.1.4.1.49279.2.5",
        "1.3.6.1.4.1.49279.2.5.1.2",
    ];
    for usages in [
        vec![],
        vec![ExtendedKeyUsagePurpose::ClientAuth],
        neighbours.map(usage).to_vec(),
    ] {
        for issuer in OID_ISSUERS {
            let refused = signer.identify(issuer, &vehicle(&usages));
            assert_eq!(
                refused,
                Err(IdentityError::NoKnownUsage {
                    issuer: issuer.to_owned()
                })
            );
        }
    }
}

#[test]
fn any_other_issuer_names_nobody_and_is_named() {
    let signer = Signer::new();
    for issuer in [
        "Tesla Motors Root CA",
        "Tesla Product Root CA",
        "teslamotors",
        "TeslaMotors ",
        "Evil\r\nCA",
    ] {
        let refused = signer
            .identify(issuer, &vehicle(&[usage("1.3.6.1.4.1.49279.2.5.1")]))
            .unwrap_err();
        assert_eq!(
            refused,
            IdentityError::UnknownIssuer {
                issuer: issuer.to_owned()
            }
        );
        assert!(
            !refused.to_string().contains('\r'),
            "a message goes into an HTTP reply: {refused}"
        );
    }
}

#[test]
fn dots_of_the_common_name_become_hyphens() {
    let mut params = vehicle(&[]);
    params.distinguished_name.push(DnType::CommonName, "a.b.c-d");
    let identity = Signer::new().identify("TeslaMotors", &params).unwrap();
    assert_eq!(
        (&*identity.device_id, &*identity.sender_id),
        ("a-b-c-d", "vehicle_device.a-b-c-d")
    );
}

#[test]
fn the_last_of_several_common_names_counts() {
    let der = with_subject(
        "TeslaMotors",
        &[(COMMON_NAME, "FIRST"), (UNIT, "x"), (COMMON_NAME, "LAST")],
    );
    assert_eq!(&*identify(&der, &IssuerTable::default()).unwrap().device_id, "LAST");
}

#[test]
fn common_names_in_old_encodings_are_read() {
    let signer = Signer::new();
    let mut params = vehicle(&[]);
    params
        .distinguished_name
        .push(DnType::CommonName, DnValue::BmpString("VIN.1".try_into().unwrap()));
    assert_eq!(&*signer.identify("TeslaMotors", &params).unwrap().device_id, "VIN-1");
    params
        .distinguished_name
        .push(DnType::CommonName, DnValue::TeletexString("VIN2".try_into().unwrap()));
    assert_eq!(&*signer.identify("TeslaMotors", &params).unwrap().device_id, "VIN2");
}

#[test]
fn a_common_name_that_cannot_be_a_device_id_is_refused() {
    let signer = Signer::new();
    let named = |name: &str| {
        let mut params = vehicle(&[]);
        params.distinguished_name.push(DnType::CommonName, name);
        signer.identify("TeslaMotors", &params)
    };
    assert_eq!(named(""), Err(IdentityError::NamelessSubject));
    assert_eq!(&*named(&"x".repeat(128)).unwrap().device_id, "x".repeat(128));
    assert!(matches!(named(&"x".repeat(129)), Err(IdentityError::UnusableName(_))));
    assert!(matches!(named("VIN\n1"), Err(IdentityError::UnusableName(_))));
    assert!(matches!(named("VIN\u{0}"), Err(IdentityError::UnusableName(_))));
    let mut params = vehicle(&[]);
    params.distinguished_name = DistinguishedName::new();
    assert_eq!(
        signer.identify("TeslaMotors", &params),
        Err(IdentityError::NamelessSubject)
    );
}

#[test]
fn an_issuer_without_a_common_name_is_refused() {
    let key = KeyPair::generate().unwrap();
    let mut issuer = authority_params("");
    issuer.distinguished_name.remove(DnType::CommonName);
    let der = vehicle(&[])
        .signed_by(&key, &Issuer::from_params(&issuer, &key))
        .unwrap();
    assert_eq!(
        identify(der.der(), &IssuerTable::default()),
        Err(IdentityError::NamelessIssuer)
    );
}

#[test]
fn bytes_that_are_no_certificate_are_refused() {
    let table = IssuerTable::default();
    assert!(matches!(identify(b"", &table), Err(IdentityError::Unreadable(_))));
    let whole = with_subject("TeslaMotors", &[(COMMON_NAME, VIN)]);
    for length in (0..whole.len()).step_by(7) {
        assert!(identify(&whole[..length], &table).is_err(), "{length} bytes");
    }
}

#[test]
fn an_extended_key_usage_that_cannot_be_read_is_refused() {
    let mut params = vehicle(&[]);
    params.custom_extensions = vec![CustomExtension::from_oid_content(
        &[2, 5, 29, 37],
        vec![0x30, 3, 6, 5, 1],
    )];
    let refused = Signer::new().identify(OID_ISSUERS[0], &params);
    assert!(refused.is_err(), "{refused:?}");
}

#[test]
fn configuration_adds_issuers_and_usages_to_the_built_in_ones() {
    let text = r#"
[listener]
certificate = "a"
private_key = "b"
vehicle_ca = "c"
[identity]
issuers = { "My CA" = "truck", "Tesla Product Access Issuing CA" = "key" }
oid_issuers = ["My Issuing CA", "TeslaMotors"]
oids = { "1.2.3.4" = "tractor", "1.3.6.1.4.1.49279.2.5.2" = "battery" }
[records]
V = "out"
[destinations.out]
type = "log"
"#;
    let table = waystation::config::parse(text, Path::new("config.toml"))
        .unwrap()
        .identity;
    let signer = Signer::new();
    let client_type = |issuer: &str, usages: &[&str]| {
        let usages: Vec<_> = usages.iter().map(|oid| usage(oid)).collect();
        signer
            .identify_with(issuer, &vehicle(&usages), &table)
            .map(|identity| identity.client_type.to_string())
    };
    assert_eq!(client_type("My CA", &[]).unwrap(), "truck");
    assert_eq!(client_type("My Issuing CA", &["1.2.3.4"]).unwrap(), "tractor");
    assert_eq!(
        client_type("My Issuing CA", &["1.3.6.1.4.1.49279.2.4.1"]).unwrap(),
        "vehicle_device"
    );
    // What is configured wins over what is built in.
    assert_eq!(client_type("Tesla Product Access Issuing CA", &[]).unwrap(), "key");
    assert_eq!(
        client_type("TeslaMotors", &["1.3.6.1.4.1.49279.2.5.2"]).unwrap(),
        "battery"
    );
    assert!(client_type("TeslaMotors", &[]).is_err());
    assert_eq!(client_type("Tesla Issuing CA", &[]).unwrap(), "vehicle_device");
    assert!(client_type("My Issuing CA", &[WIFI, "1.2.3.4"]).is_err());
}

#[test]
fn a_usage_that_is_no_oid_or_the_wifi_one_cannot_be_added() {
    let mut table = IssuerTable::default();
    for oid in ["", "1", "1.", "1.2.x", "1.2.03", "1.-2", "clientAuth", WIFI] {
        assert!(table.add_oid(oid, "x").is_err(), "{oid}");
    }
    assert_eq!(table, IssuerTable::default());
}
