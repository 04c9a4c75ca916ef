//! `waystation pki`: a throwaway public key infrastructure, for trying things out and for tests.
//!
//! Two authorities that know nothing of each other: one signs vehicles, under a name that the built-in identity table
//! knows, the other signs the server. Invariant: no file that exists is ever written over.

use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, PublicKeyData,
};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use thiserror::Error;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::values;

const ORGANIZATION: &str = "waystation throwaway PKI";
/// An issuer that stands for cars in the built-in identity table.
const VEHICLE_CA: &str = "TeslaMotors";
const DAY: Duration = Duration::from_secs(86_400);
const CA_DAYS: u32 = 3_650;
const LEAF_DAYS: u32 = 730;

/// Arguments of `waystation pki`.
#[derive(Debug, Clone, clap::Args)]
pub struct PkiArgs {
    /// Directory to write to; made if it is not there. With a PKI in it, only vehicles are added
    #[arg(long, value_name = "DIR")]
    pub out: PathBuf,
    /// Name or address of the server, beside localhost, 127.0.0.1 and ::1; may be repeated
    #[arg(long = "name", value_name = "HOST", value_parser = values::server_name)]
    pub names: Vec<String>,
    /// How many vehicles there shall be, with made-up VINs
    #[arg(long, value_name = "N", default_value_t = 3)]
    pub vehicles: usize,
    /// VIN of a vehicle there shall be besides; may be repeated
    #[arg(long = "vin", value_name = "VIN", value_parser = vin)]
    pub vins: Vec<String>,
}

/// Why a PKI, or a part of one, was not made.
#[derive(Debug, Error)]
pub enum PkiError {
    /// A certificate or key cannot be made.
    #[error("cannot make a certificate for {subject:?}: {source}")]
    Make {
        /// Whose it was to be.
        subject: String,
        /// What the library said.
        source: rcgen::Error,
    },
    /// The name cannot be that of a vehicle and of its files.
    #[error("{0:?} is not a VIN; write 1 to 64 of the characters A-Z a-z 0-9 _ -")]
    Vin(String),
    /// Something is there already.
    #[error("{} exists and is not written over; name another directory, or remove it", .0.display())]
    Exists(PathBuf),
    /// Server names were given for a PKI whose server certificate exists.
    #[error("{} holds a PKI whose server certificate is made; leave out --name, or name another directory", .0.display())]
    NamesAreFixed(PathBuf),
    /// A file cannot be read.
    #[error("cannot read {}: {source}; the PKI is not whole, name another directory", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A file or directory cannot be written.
    #[error("cannot write {}: {source}; name a directory that can be written", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The directory's vehicle authority is not one of ours, or damaged.
    #[error("{} cannot be used to add vehicles: {reason}; name another directory", path.display())]
    NotOurs {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
}

/// The server's side of a PKI, in PEM form.
#[derive(Debug, Clone)]
pub struct ServerPem {
    /// The authority that vehicles have to trust.
    pub ca: String,
    /// The server's certificate, then its authority's.
    pub chain: String,
    /// The server's private key.
    pub key: String,
}

/// A throwaway PKI.
#[derive(Debug)]
pub struct Pki {
    vehicle_ca: Issuer<'static, KeyPair>,
    vehicle_ca_pem: String,
    server: Option<ServerPem>,
}

impl Pki {
    /// Makes new authorities and a server certificate for these names and addresses, localhost included.
    pub fn new(server_names: &[String]) -> Result<Self, PkiError> {
        let (vehicle_ca, vehicle_ca_pem) = authority(VEHICLE_CA)?;
        let (server_ca, ca) = authority("waystation throwaway server CA")?;
        let mut names: Vec<String> = server_names.to_vec();
        names.extend(
            ["localhost", "127.0.0.1", "::1"]
                .map(str::to_owned)
                .into_iter()
                .filter(|name| !server_names.contains(name)),
        );
        let subject = names[0].clone();
        let made = |source| PkiError::Make {
            subject: subject.clone(),
            source,
        };
        let mut params = CertificateParams::new(names).map_err(made)?;
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        let (certificate, key) = signed(params, &subject, &server_ca)?;
        let chain = format!("{certificate}{ca}");
        Ok(Self {
            vehicle_ca,
            vehicle_ca_pem,
            server: Some(ServerPem { ca, chain, key }),
        })
    }

    /// Takes up the vehicle authority that [`write`](Self::write) left in a directory, to sign more vehicles.
    pub fn open(dir: &Path) -> Result<Self, PkiError> {
        let (path, key_path) = (dir.join("vehicle-ca.pem"), dir.join("vehicle-ca.key"));
        let vehicle_ca_pem = read(&path)?;
        let key = KeyPair::from_pem(&read(&key_path)?).map_err(|source| PkiError::NotOurs {
            path: key_path.clone(),
            reason: source.to_string(),
        })?;
        let not_ours = |reason: &str| PkiError::NotOurs {
            path: path.clone(),
            reason: reason.to_owned(),
        };
        let der = CertificateDer::from_pem_slice(vehicle_ca_pem.as_bytes())
            .map_err(|_| not_ours("it holds no certificate"))?;
        let (_, certificate) = X509Certificate::from_der(&der).map_err(|_| not_ours("its certificate is damaged"))?;
        if certificate.public_key().raw != key.subject_public_key_info() {
            return Err(not_ours("vehicle-ca.key is another certificate's key"));
        }
        // Signing needs the name only, and the name is always the same one.
        let params = authority_params(VEHICLE_CA);
        let ours = params.self_signed(&key).map_err(|source| PkiError::Make {
            subject: VEHICLE_CA.to_owned(),
            source,
        })?;
        let (_, ours) = X509Certificate::from_der(ours.der()).map_err(|_| not_ours("its certificate is damaged"))?;
        if certificate.subject().as_raw() != ours.subject().as_raw() {
            return Err(not_ours("it was not made by waystation pki"));
        }
        Ok(Self {
            vehicle_ca: Issuer::new(params, key),
            vehicle_ca_pem,
            server: None,
        })
    }

    /// Makes a vehicle's certificate and private key, in PEM form.
    pub fn vehicle(&self, vin: &str) -> Result<(String, String), PkiError> {
        check_vin(vin)?;
        let mut params = CertificateParams::default();
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        signed(params, vin, &self.vehicle_ca)
    }

    /// The vehicle authority's certificate, in PEM form.
    pub fn vehicle_ca_pem(&self) -> &str {
        &self.vehicle_ca_pem
    }

    /// The server's side; none in a PKI that was opened, which only signs vehicles.
    pub fn server(&self) -> Option<&ServerPem> {
        self.server.as_ref()
    }

    /// Writes the PKI and these vehicles to a directory, and gives the paths written.
    ///
    /// Refuses, before anything is written, if a file of the authorities or of the server is there. An opened PKI
    /// writes vehicles only; a vehicle that is there stays as it is.
    pub fn write(&self, dir: &Path, vehicles: &[String]) -> Result<Vec<PathBuf>, PkiError> {
        let mut files = Vec::new();
        if let Some(server) = &self.server {
            files.push((dir.join("server-ca.pem"), server.ca.clone()));
            files.push((dir.join("server.pem"), server.chain.clone()));
            files.push((dir.join("server.key"), server.key.clone()));
            files.push((dir.join("vehicle-ca.pem"), self.vehicle_ca_pem.clone()));
            files.push((dir.join("vehicle-ca.key"), self.vehicle_ca.key().serialize_pem()));
        }
        let vehicle_dir = dir.join("vehicles");
        for vin in vehicles {
            check_vin(vin)?;
            let (certificate, key) = (
                vehicle_dir.join(format!("{vin}.pem")),
                vehicle_dir.join(format!("{vin}.key")),
            );
            let known = files.iter().any(|(path, _)| *path == certificate);
            if known || (self.server.is_none() && certificate.exists() && key.exists()) {
                continue;
            }
            let (certificate_pem, key_pem) = self.vehicle(vin)?;
            files.push((certificate, certificate_pem));
            files.push((key, key_pem));
        }
        if let Some((path, _)) = files.iter().find(|(path, _)| path.exists()) {
            return Err(PkiError::Exists(path.clone()));
        }
        DirBuilder::new()
            .recursive(true)
            .mode(0o755)
            .create(&vehicle_dir)
            .map_err(|source| PkiError::Write {
                path: vehicle_dir.clone(),
                source,
            })?;
        for (path, content) in &files {
            let mode = if path.extension().is_some_and(|extension| extension == "key") {
                0o600
            } else {
                0o644
            };
            let written = OpenOptions::new()
                .write(true)
                .create_new(true)
                .mode(mode)
                .open(path)
                .and_then(|mut file| file.write_all(content.as_bytes()));
            written.map_err(|source| match source.kind() {
                io::ErrorKind::AlreadyExists => PkiError::Exists(path.clone()),
                _ => PkiError::Write {
                    path: path.clone(),
                    source,
                },
            })?;
        }
        Ok(files.into_iter().map(|(path, _)| path).collect())
    }
}

/// VINs that look like a car's, numbered from 1. They are nobody's: real ones carry a check digit.
pub fn vins(n: usize) -> Vec<String> {
    (1..=n).map(|number| format!("5YJ3E1EA7KF{number:06}")).collect()
}

/// Runs `waystation pki`.
pub fn run(args: &PkiArgs) -> Result<(), PkiError> {
    let mut vehicles = vins(args.vehicles);
    vehicles.extend(args.vins.iter().cloned());
    let pki = if args.out.join("vehicle-ca.key").exists() {
        if !args.names.is_empty() {
            return Err(PkiError::NamesAreFixed(args.out.clone()));
        }
        Pki::open(&args.out)?
    } else {
        Pki::new(&args.names)?
    };
    let written = pki.write(&args.out, &vehicles)?;
    for path in &written {
        say!("wrote {}", path.display());
    }
    if written.is_empty() {
        say!("nothing to write: all {} vehicles are there", vehicles.len());
    }
    say!();
    say!("For trying things out only: anyone who reads the keys is a vehicle.");
    say!(
        "Next: waystation simulate --pki {} --connect HOST:PORT",
        args.out.display()
    );
    Ok(())
}

fn authority_params(name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    name_and_date(&mut params, name, CA_DAYS);
    params
}

fn authority(name: &str) -> Result<(Issuer<'static, KeyPair>, String), PkiError> {
    let made = |source| PkiError::Make {
        subject: name.to_owned(),
        source,
    };
    let params = authority_params(name);
    let key = KeyPair::generate().map_err(made)?;
    let pem = params.self_signed(&key).map_err(made)?.pem();
    Ok((Issuer::new(params, key), pem))
}

fn signed(
    mut params: CertificateParams,
    name: &str,
    issuer: &Issuer<'static, KeyPair>,
) -> Result<(String, String), PkiError> {
    let made = |source| PkiError::Make {
        subject: name.to_owned(),
        source,
    };
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    // Strict verifiers, Python's from 3.13 on among them, insist on it.
    params.use_authority_key_identifier_extension = true;
    name_and_date(&mut params, name, LEAF_DAYS);
    let key = KeyPair::generate().map_err(made)?;
    let certificate = params.signed_by(&key, issuer).map_err(made)?;
    Ok((certificate.pem(), key.serialize_pem()))
}

fn name_and_date(params: &mut CertificateParams, name: &str, days: u32) {
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    params.distinguished_name.push(DnType::OrganizationName, ORGANIZATION);
    // From yesterday, so that a machine whose clock is a little behind takes it too.
    let now = SystemTime::now();
    params.not_before = (now - DAY).into();
    params.not_after = (now + DAY * days).into();
}

fn vin(text: &str) -> Result<String, PkiError> {
    check_vin(text).map(|()| text.to_owned())
}

fn check_vin(vin: &str) -> Result<(), PkiError> {
    let usable = (1..=64).contains(&vin.len())
        && vin
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-'));
    if usable {
        Ok(())
    } else {
        Err(PkiError::Vin(vin.to_owned()))
    }
}

fn read(path: &Path) -> Result<String, PkiError> {
    fs::read_to_string(path).map_err(|source| PkiError::Read {
        path: path.to_owned(),
        source,
    })
}
