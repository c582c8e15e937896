use crate::http::tls::PeerCertificate;
use crate::rule::client_name::is_client_name;
use rustls::pki_types::CertificateDer;
use std::collections::BTreeSet;

/// Input: the certificate of a client, in DER.
pub(super) fn holds(data: &[u8]) {
    let der = CertificateDer::from(data);
    let certificate = match PeerCertificate::read(std::slice::from_ref(&der)) {
        Ok(certificate) => certificate,
        Err(error) => {
            let told = error.to_string();
            assert!(!told.contains(char::is_control) && told.len() < 300, "{told:?}");
            return;
        }
    };
    assert!(data.len() <= 16 << 10 && certificate.names.len() <= 16);
    for name in &certificate.names {
        assert!(is_client_name(name), "{name:?}");
    }
    let each: BTreeSet<&String> = certificate.names.iter().collect();
    assert_eq!(each.len(), certificate.names.len(), "each name once");
    // What stands behind it in the chain gives it no name and no more time.
    if let Ok(more) = PeerCertificate::read(&[der, CertificateDer::from(&[0x30, 0][..])]) {
        assert_eq!((&more.names, more.ends), (&certificate.names, certificate.ends));
    }
}
