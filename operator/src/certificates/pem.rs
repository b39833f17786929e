//! A certificate and the authority that signs it and nothing else.

use coterie_api::name::EXCHANGE_TLS_NAME;
use coterie_operator_core::observed::Validity;
use jiff::Timestamp;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, date_time_ymd,
};
use std::time::Duration;

/// Nodes whose clocks are a little late take it at once.
const CLOCKS_APART: Duration = Duration::from_secs(300);
const END: &str = "-----END CERTIFICATE-----\n";

/// PEM texts.
pub struct Pair {
    /// Certificate of the authority. Its key is gone: nobody can make another certificate that is trusted.
    pub authority: String,
    /// The certificate of every rank.
    pub certificate: String,
    /// Its private key.
    pub key: String,
}

impl Pair {
    /// Makes both.
    pub fn make(validity: Validity) -> Result<Self, rcgen::Error> {
        let authority_key = KeyPair::generate()?;
        let mut authority = params(&format!("Coterie exchange {}", validity.from), validity);
        authority.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        authority.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let authority_certificate = authority.self_signed(&authority_key)?;

        let key = KeyPair::generate()?;
        let mut rank = params("Coterie rank", validity);
        rank.subject_alt_names = vec![rcgen::SanType::DnsName(EXCHANGE_TLS_NAME.try_into()?)];
        rank.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        rank.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        let certificate = rank.signed_by(&key, &Issuer::new(authority, authority_key))?;
        Ok(Self {
            authority: unix(authority_certificate.pem()),
            certificate: unix(certificate.pem()),
            key: unix(key.serialize_pem()),
        })
    }
}

/// The certificates of a bundle, each with its end.
pub fn blocks(bundle: &str) -> Vec<String> {
    let bundle = unix(bundle.to_owned());
    bundle.split_inclusive(END).filter(|block| block.ends_with(END)).map(str::to_owned).collect()
}

fn unix(text: String) -> String {
    text.replace("\r\n", "\n")
}

fn params(name: &str, validity: Validity) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, name);
    let time = |time: Timestamp| {
        let seconds = u64::try_from(time.as_second()).unwrap_or(0);
        date_time_ymd(1970, 1, 1) + Duration::from_secs(seconds)
    };
    params.not_before = time(validity.from) - CLOCKS_APART;
    params.not_after = time(validity.to);
    params
}
