//! A gateway's TLS over loopback, loaded from files as the daemon loads them.
#![allow(dead_code)]

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{CertificateError, ClientConfig, RootCertStore, SupportedProtocolVersion};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::{TlsAcceptor, TlsConnector};
use waystation::cli::pki::Pki;
use waystation::config::Listener;
use waystation::listener::tls::{Loaded, TlsError, load};

use crate::certificates::{Authority, Shown};

pub(crate) static BOTH_VERSIONS: [&SupportedProtocolVersion; 2] = [&rustls::version::TLS13, &rustls::version::TLS12];

/// A gateway's TLS with its files, and what a client needs to trust it.
pub(crate) struct Gateway {
    pub(crate) dir: tempfile::TempDir,
    pub(crate) config: Listener,
    pub(crate) ca: CertificateDer<'static>,
}

/// Certificates, leaf first.
pub(crate) type Chain = Vec<CertificateDer<'static>>;

impl Gateway {
    /// One whose vehicle bundle is this text.
    pub(crate) fn new(vehicle_ca: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let pki = Pki::new(&[]).unwrap();
        let server = pki.server().unwrap();
        fs::write(dir.path().join("server.pem"), &server.chain).unwrap();
        fs::write(dir.path().join("server.key"), &server.key).unwrap();
        fs::write(dir.path().join("vehicle-ca.pem"), vehicle_ca).unwrap();
        let config = Listener {
            bind: "127.0.0.1:0".parse().unwrap(),
            certificate: dir.path().join("server.pem"),
            private_key: dir.path().join("server.key"),
            vehicle_ca: vec![dir.path().join("vehicle-ca.pem")],
            vehicle_crl: Vec::new(),
            public_key: None,
            allow_vins: BTreeSet::new(),
            messages_per_second: 100,
            max_connections: 10,
            handshake_timeout: Duration::from_secs(10),
            idle_timeout: Duration::from_secs(10),
            max_waiting_bytes: 4 << 20,
        };
        let ca = CertificateDer::from_pem_slice(server.ca.as_bytes()).unwrap();
        Self { dir, config, ca }
    }

    pub(crate) fn trusting(authorities: &[&Authority]) -> Self {
        Self::new(
            &authorities
                .iter()
                .map(|authority| authority.certificate.pem())
                .collect::<String>(),
        )
    }

    pub(crate) fn load(&self) -> Result<Loaded, TlsError> {
        load(&self.config)
    }

    /// What loading says when it fails, without the directory.
    pub(crate) fn refused(&self) -> String {
        let refused = self.load().unwrap_err().to_string();
        self.named(vec![refused]).remove(0)
    }

    pub(crate) fn warnings(&self) -> Vec<String> {
        self.named(self.load().unwrap().warnings)
    }

    pub(crate) fn outdated(&self) -> Vec<String> {
        self.named(self.load().unwrap().outdated)
    }

    /// Without the directory.
    fn named(&self, said: Vec<String>) -> Vec<String> {
        let dir = format!("{}/", self.dir.path().display());
        said.iter().map(|line| line.replace(&dir, "")).collect()
    }

    /// Shakes hands, and gives what the server then knows of the client: its chain, if it sent one.
    pub(crate) async fn meets(&self, client: Arc<ClientConfig>) -> Result<Option<Chain>, rustls::Error> {
        let acceptor = TlsAcceptor::from(self.load().unwrap().server);
        let socket = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = socket.local_addr().unwrap();
        let connect = async move {
            let stream = TcpStream::connect(address).await.unwrap();
            // Refusals are looked at where they are made: under TLS 1.3 the client does not see them here.
            TlsConnector::from(client)
                .connect(ServerName::try_from("localhost").unwrap(), stream)
                .await
        };
        let accept = async {
            let (stream, _) = socket.accept().await.unwrap();
            acceptor.accept(stream).await
        };
        let (_client, accepted) = tokio::join!(connect, accept);
        match accepted {
            Ok(stream) => Ok(stream.get_ref().1.peer_certificates().map(<[_]>::to_vec)),
            Err(error) => Err(error.downcast::<rustls::Error>().unwrap()),
        }
    }

    /// Meets a vehicle under both versions of TLS, which have to agree.
    pub(crate) async fn meets_vehicle(&self, shown: &Shown) -> Result<Chain, CertificateError> {
        let mut results = Vec::new();
        for version in BOTH_VERSIONS {
            let mut roots = RootCertStore::empty();
            roots.add(self.ca.clone()).unwrap();
            let client = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
                .with_protocol_versions(&[version])
                .unwrap()
                .with_root_certificates(roots)
                .with_client_auth_cert(shown.chain.clone(), shown.key.clone_key())
                .unwrap();
            results.push(match self.meets(Arc::new(client)).await {
                Ok(chain) => Ok(chain.unwrap()),
                Err(rustls::Error::InvalidCertificate(reason)) => Err(reason),
                Err(other) => panic!("{:?}: {other}", version.version),
            });
        }
        let (first, second) = (results.remove(0), results.remove(0));
        assert_eq!(first.is_ok(), second.is_ok(), "{first:?} {second:?}");
        first
    }
}

/// Runs openssl, for what rcgen cannot make.
pub(crate) fn openssl(dir: &Path, arguments: &str) {
    let run = Command::new("openssl")
        .args(arguments.split(' '))
        .current_dir(dir)
        .output();
    let output = run.unwrap_or_else(|error| panic!("cannot run openssl ({error}); apt-get install openssl"));
    assert!(
        output.status.success(),
        "openssl {arguments}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
}
