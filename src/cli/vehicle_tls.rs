//! The vehicle's side of TLS, for simulated vehicles: it trusts the authorities it is given and nothing else.

use std::sync::Arc;

use rustls::crypto::aws_lc_rs;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, ConfigBuilder, RootCertStore, WantsVerifier, client::WantsClientCert};

/// TLS for a vehicle that shows a certificate: `chain` is its own first, then any intermediates.
pub fn client_config(
    ca: &[CertificateDer<'static>],
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
) -> Result<Arc<ClientConfig>, rustls::Error> {
    finished(trusting(ca)?.with_client_auth_cert(chain, key)?)
}

/// TLS for a client that shows no certificate, as one that only asks for `/status`.
pub fn anonymous_client_config(ca: &[CertificateDer<'static>]) -> Result<Arc<ClientConfig>, rustls::Error> {
    finished(trusting(ca)?.with_no_client_auth())
}

fn trusting(ca: &[CertificateDer<'static>]) -> Result<ConfigBuilder<ClientConfig, WantsClientCert>, rustls::Error> {
    let mut roots = RootCertStore::empty();
    for certificate in ca {
        roots.add(certificate.clone())?;
    }
    let builder: ConfigBuilder<ClientConfig, WantsVerifier> =
        ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()?;
    Ok(builder.with_root_certificates(roots))
}

fn finished(mut config: ClientConfig) -> Result<Arc<ClientConfig>, rustls::Error> {
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}
