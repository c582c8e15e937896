//! Names of certificates as others may make them.

use super::*;
use crate::golden::cases;
use proptest::prelude::*;
use x509_cert::attr::AttributeTypeAndValue;
use x509_cert::der::asn1::{Any, Ia5String, OctetString, SetOfVec};
use x509_cert::der::oid::db::{DB, rfc5912::ID_CE_EXT_KEY_USAGE, rfc5912::ID_CE_SUBJECT_ALT_NAME};
use x509_cert::der::{Encode, Tag};
use x509_cert::ext::Extension;
use x509_cert::name::{RdnSequence, RelativeDistinguishedName};

/// A certificate that rfwgen has made for a client, which the fuzz target begins with.
const TEMPLATE: &[u8] = include_bytes!("../../../../tests/fuzz/corpus/certificate/client");

fn tag(name: &str) -> Tag {
    match name {
        "utf8" => Tag::Utf8String,
        "printable" => Tag::PrintableString,
        "teletex" => Tag::TeletexString,
        "bmp" => Tag::BmpString,
        "ia5" => Tag::Ia5String,
        "octets" => Tag::OctetString,
        _ => panic!("{name}"),
    }
}

/// The parts of a field, each with its kind.
fn parts(field: &str) -> Vec<(&str, String)> {
    let part = |part: &'_ str| -> (usize, String) {
        let at = part.find(':').unwrap_or_else(|| panic!("{part}"));
        let text = part[at + 1..].to_owned();
        // "a*300" is a name of that length.
        let text = match text.split_once('*').map(|(letter, number)| (letter, number.parse())) {
            Some((letter, Ok(number))) => letter.repeat(number),
            _ => text,
        };
        (at, text)
    };
    let fields = field.split(';').filter(|part| *part != "-");
    fields.map(|text| (part(text), text)).map(|((at, text), field)| (&field[..at], text)).collect()
}

fn subject(field: &str) -> RdnSequence {
    let parts = parts(field).into_iter().map(|(kind, text)| {
        let (oid, kind) = match kind.strip_prefix("ou-") {
            Some(kind) => (*DB.by_name("ou").unwrap(), kind),
            None => (COMMON_NAME, kind),
        };
        let value = Any::new(tag(kind), text.into_bytes()).unwrap();
        RelativeDistinguishedName(SetOfVec::from_iter([AttributeTypeAndValue { oid, value }]).unwrap())
    });
    RdnSequence(parts.collect())
}

fn alternative(field: &str) -> Vec<GeneralName> {
    let ia5 = |text: &str| Ia5String::new(text).unwrap();
    let names = parts(field).into_iter().flat_map(|(kind, text)| match kind {
        "dns" => vec![GeneralName::DnsName(ia5(&text))],
        "mail" => vec![GeneralName::Rfc822Name(ia5(&text))],
        "uri" => vec![GeneralName::UniformResourceIdentifier(ia5(&text))],
        "ip" => vec![GeneralName::IpAddress(OctetString::new(text.into_bytes()).unwrap())],
        "many" => {
            let number: usize = text.parse().unwrap();
            (0..number).map(|number| GeneralName::DnsName(ia5(&format!("n{number}")))).collect()
        }
        _ => panic!("{kind}"),
    });
    names.collect()
}

/// The template with another subject, subjectAltName and extendedKeyUsage.
fn certificate(subject_field: &str, names: &str, usage: &str) -> Vec<u8> {
    let mut certificate = Certificate::from_der(TEMPLATE).unwrap();
    let inner = &mut certificate.tbs_certificate;
    inner.subject = subject(subject_field);
    let extensions = inner.extensions.as_mut().unwrap();
    extensions.retain(|known| ![ID_CE_EXT_KEY_USAGE, ID_CE_SUBJECT_ALT_NAME].contains(&known.extn_id));
    let mut add = |extn_id, der: Vec<u8>| {
        extensions.push(Extension { extn_id, critical: false, extn_value: OctetString::new(der).unwrap() });
    };
    for names in names.split(" & ").filter(|names| *names != "-") {
        let der = if names == "garbage" { vec![0x30, 0x05, 1] } else { alternative(names).to_der().unwrap() };
        add(ID_CE_SUBJECT_ALT_NAME, der);
    }
    let purposes = usage.split(' ').filter(|usage| *usage != "-").map(|usage| match usage {
        "client" => ID_KP_CLIENT_AUTH,
        "server" => der::oid::db::rfc5280::ID_KP_SERVER_AUTH,
        "any" => der::oid::db::rfc5280::ANY_EXTENDED_KEY_USAGE,
        _ => panic!("{usage}"),
    });
    let purposes: Vec<_> = purposes.collect();
    if !purposes.is_empty() {
        add(ID_CE_EXT_KEY_USAGE, purposes.to_der().unwrap());
    }
    certificate.to_der().unwrap()
}

#[test]
fn a_client_has_the_names_of_its_certificate_that_a_client_can_have() {
    for (at, [subject, alternative, usage, expected]) in cases("certificate-names.txt") {
        let der = certificate(&subject, &alternative, &usage);
        let read = PeerCertificate::read(&[CertificateDer::from(der)]);
        let said = match read {
            Ok(certificate) if certificate.names.is_empty() => "-".to_owned(),
            Ok(certificate) => certificate.names.join(" "),
            Err(error) => format!("error: {error}"),
        };
        // Of some only the beginning is said here.
        let same =
            said == expected || expected.ends_with('…') && said.starts_with(expected.trim_end_matches('…'));
        assert!(same, "{at}: {said:?}, expected {expected:?}");
    }
}

#[test]
fn a_chain_is_bounded_and_has_a_beginning() {
    assert_eq!(PeerCertificate::read(&[]), Err(CertificateError::Missing));
    let one = CertificateDer::from(TEMPLATE);
    let whole = PeerCertificate::read(&[one.clone(), CertificateDer::from(vec![0; 1_000])]).unwrap();
    assert_eq!(whole.chain().len(), 2);
    let [four, five] = [4, 5].map(|number| PeerCertificate::read(&vec![one.clone(); number]));
    assert!(four.is_ok() && five == Err(CertificateError::Large(5, 5 * TEMPLATE.len())), "{five:?}");
    let size = TEMPLATE.len() + CHAIN_MAX;
    let behind = CertificateDer::from(vec![0; CHAIN_MAX]);
    assert_eq!(PeerCertificate::read(&[one, behind]), Err(CertificateError::Large(2, size)));
    let cut = CertificateDer::from(&TEMPLATE[..TEMPLATE.len() - 1]);
    assert!(matches!(PeerCertificate::read(&[cut]), Err(CertificateError::Unreadable(_))));
}

proptest! {
    #[test]
    fn no_damage_panics(at in 0..TEMPLATE.len(), bytes in prop::collection::vec(any::<u8>(), 0..9), cut in 0..9_usize) {
        let mut der = TEMPLATE.to_vec();
        let end = (at + cut).min(der.len());
        der.splice(at..end, bytes);
        let _ = PeerCertificate::read(&[CertificateDer::from(der)]);
    }
}
