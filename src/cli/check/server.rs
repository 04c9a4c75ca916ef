//! A gateway from outside, as a vehicle meets it: reached, for the right name, with its chain, asking for a certificate
//! without a list of authorities.

use std::fs;
use std::io::{Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{ResolvesClientCert, WebPkiServerVerifier};
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::sign::CertifiedKey;
use rustls::{ClientConfig, ClientConnection, DigitallySignedStruct, RootCertStore, SignatureScheme, Stream};
use x509_parser::prelude::{FromDer, X509Certificate};

use super::files::names;
use super::findings::Findings;

const PATIENCE: Duration = Duration::from_secs(10);
/// Where Debian and others keep the authorities that the system trusts.
const SYSTEM: &str = "/etc/ssl/certs/ca-certificates.crt";

/// What the handshake showed.
#[derive(Debug, Default)]
struct Seen {
    chain: Vec<CertificateDer<'static>>,
    /// Why the chain is not trusted.
    refused: Option<String>,
    /// How many authorities were named; `None`: no certificate was asked for.
    authorities: Option<usize>,
}

/// Looks at a server at `HOST:PORT`. `ca`: the authorities that vehicles are told to trust.
pub(super) fn check(server: &str, ca: Option<&Path>, findings: &mut Findings) {
    let Some((host, port)) = server
        .rsplit_once(':')
        .and_then(|(host, port)| Some((host.trim_matches(['[', ']']), port.parse::<u16>().ok()?)))
    else {
        findings.bad(format!(
            "--server: {server:?} is not HOST:PORT; write for example gateway.example.com:443"
        ));
        return;
    };
    let Some(stream) = connect(host, port, findings) else {
        return;
    };
    let roots = match roots(ca.unwrap_or(Path::new(SYSTEM))) {
        Ok(roots) => roots,
        Err(error) => return findings.bad(error),
    };
    let seen = Arc::new(Mutex::new(Seen::default()));
    let shaken = shake(host, stream, roots, &seen);
    let seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
    tell(host, &seen, shaken, ca, findings);
}

fn connect(host: &str, port: u16, findings: &mut Findings) -> Option<TcpStream> {
    let addresses = match (host, port).to_socket_addrs() {
        Ok(addresses) => addresses.collect::<Vec<_>>(),
        Err(error) => {
            findings.bad(format!(
                "{host}: the name is not known: {error}; check the DNS record that vehicles are to use"
            ));
            return None;
        }
    };
    let shown: Vec<String> = addresses.iter().map(|address| address.ip().to_string()).collect();
    findings.good(format!("{host} is {}", shown.join(", ")));
    let mut last = None;
    for address in addresses {
        match TcpStream::connect_timeout(&address, PATIENCE) {
            Ok(stream) => {
                findings.good(format!("{address} accepts connections"));
                return Some(stream);
            }
            Err(error) => {
                last = Some(format!(
                    "{address} cannot be reached: {error}; is the gateway running, and does the firewall or router let port {port} through?"
                ))
            }
        }
    }
    last.into_iter().for_each(|said| findings.bad(said));
    None
}

fn roots(path: &Path) -> Result<RootCertStore, String> {
    let bad = |why: &dyn std::fmt::Display| {
        format!(
            "cannot use the authorities in {}: {why}; name a PEM file with --ca, or install ca-certificates",
            path.display()
        )
    };
    let pem = fs::read(path).map_err(|error| bad(&error))?;
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(CertificateDer::pem_slice_iter(&pem).flatten());
    match roots.is_empty() {
        true => Err(bad(&"there is none in it")),
        false => Ok(roots),
    }
}

/// A handshake without a certificate, and a request for `/status`. Ends with the answer's first line.
fn shake(host: &str, mut stream: TcpStream, roots: RootCertStore, seen: &Arc<Mutex<Seen>>) -> Result<String, String> {
    let words = |error: &dyn std::fmt::Display| error.to_string();
    let provider = Arc::new(aws_lc_rs::default_provider());
    let inner = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider))
        .build()
        .map_err(|error| words(&error))?;
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| words(&error))?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Onlooker {
            inner,
            seen: Arc::clone(seen),
        }))
        .with_client_cert_resolver(Arc::new(Nobody(Arc::clone(seen))));
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    let name = ServerName::try_from(host.to_owned()).map_err(|error| words(&error))?;
    let mut connection = ClientConnection::new(Arc::new(config), name).map_err(|error| words(&error))?;
    for timeout in [TcpStream::set_read_timeout, TcpStream::set_write_timeout] {
        timeout(&stream, Some(PATIENCE)).map_err(|error| words(&error))?;
    }
    let mut tls = Stream::new(&mut connection, &mut stream);
    let request = format!("GET /status HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
    tls.write_all(request.as_bytes()).map_err(|error| words(&error))?;
    let mut answer = [0; 512];
    let length = tls.read(&mut answer).map_err(|error| words(&error))?;
    let answer = String::from_utf8_lossy(&answer[..length]);
    Ok(answer.lines().next().unwrap_or_default().to_owned())
}

fn tell(host: &str, seen: &Seen, shaken: Result<String, String>, ca: Option<&Path>, findings: &mut Findings) {
    if seen.chain.is_empty() {
        let why = shaken.err().unwrap_or_default();
        findings.bad(format!("no TLS: {why}; a proxy that ends TLS must pass it on instead"));
        return;
    }
    let leaf = X509Certificate::from_der(&seen.chain[0]).ok().map(|(_, leaf)| leaf);
    if let Some(leaf) = leaf {
        let names = names(&seen.chain[0]).unwrap_or_default();
        let until = leaf.validity().not_after.to_datetime().date();
        findings.good(format!(
            "its certificate is for {}, issued by {}, valid until {until}",
            names.join(", "),
            leaf.issuer()
        ));
    }
    let trusted_by = ca.map_or("the system".to_owned(), |ca| ca.display().to_string());
    match (&seen.refused, seen.chain.len()) {
        (None, count) => findings.good(format!("it is trusted for {host} by the authorities of {trusted_by}, certificates sent: {count}")),
        (Some(why), 1) => findings.bad(format!(
            "it is not trusted for {host} by the authorities of {trusted_by}: {why}; only the server's own certificate is sent: put its chain behind it in listener.certificate, or name the authority that vehicles are told to trust with --ca"
        )),
        (Some(why), _) => findings.bad(format!(
            "it is not trusted for {host} by the authorities of {trusted_by}: {why}; have it issued for {host} by an authority that vehicles are told to trust, and name that with --ca"
        )),
    }
    match seen.authorities {
        None => findings.bad("it asks for no client certificate, so that no vehicle can show who it is; a proxy that ends TLS must pass it on instead"),
        Some(0) => findings.good("it asks for a client certificate and sends no list of acceptable authorities"),
        Some(many) => findings.bad(format!(
            "it sends a list of acceptable authorities ({many}): vehicles are known to show no certificate then; this gateway sends none, so something else answers here"
        )),
    }
    match shaken {
        Ok(line) if line.contains(" 200") => findings.good("it answers /status"),
        Ok(line) => findings.warn(format!("its answer to /status is {line:?}")),
        Err(why) => findings.warn(format!(
            "it does not answer /status to a client without a certificate: {why}"
        )),
    }
}

/// Notes the chain and what is wrong with it, and goes on in any case: nothing is sent that anybody may not see.
#[derive(Debug)]
struct Onlooker {
    inner: Arc<WebPkiServerVerifier>,
    seen: Arc<Mutex<Seen>>,
}

impl ServerCertVerifier for Onlooker {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let verified = self
            .inner
            .verify_server_cert(end_entity, intermediates, server_name, ocsp, now);
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let all = std::iter::once(end_entity).chain(intermediates);
        seen.chain = all.map(|der| der.clone().into_owned()).collect();
        seen.refused = verified.err().map(|error| error.to_string());
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.inner.verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.inner.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.inner.supported_verify_schemes()
    }
}

/// Shows no certificate, and notes whether one was asked for.
#[derive(Debug)]
struct Nobody(Arc<Mutex<Seen>>);

impl ResolvesClientCert for Nobody {
    fn resolve(&self, authorities: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).authorities = Some(authorities.len());
        None
    }

    fn has_certs(&self) -> bool {
        true
    }
}
