//! Whether ranks can prove themselves by certificates, by the same checks that ranks make.

use coterie_api::name::{EXCHANGE_TLS_NAME, TLS_AUTHORITY_FILE, TLS_CERTIFICATE_FILE, TLS_KEY_FILE};
use jiff::Timestamp;
use rustls::RootCertStore;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::ServerCertVerifier;
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::sign::CertifiedKey;
use std::fmt::Display;
use std::sync::Arc;
use std::time::Duration;

/// What is in a Secret, as PEM.
pub struct Contents<'a> {
    /// `ca.crt`.
    pub authorities: &'a [u8],
    /// `tls.crt`.
    pub certificate: &'a [u8],
    /// `tls.key`.
    pub key: &'a [u8],
}

impl Contents<'_> {
    /// Why no rank takes another for one of its own at that time: something is no PEM, the key is another one's, no
    /// authority that is there signed the certificate, it is for another name, or not valid then.
    pub fn obstacle(&self, at: Timestamp) -> Option<String> {
        self.check(at).err()
    }

    fn check(&self, at: Timestamp) -> Result<(), String> {
        let provider = Arc::new(ring::default_provider());
        let mut roots = RootCertStore::empty();
        for authority in certificates(TLS_AUTHORITY_FILE, self.authorities)? {
            roots.add(authority).map_err(|error| wrong(TLS_AUTHORITY_FILE, &error))?;
        }
        let roots = Arc::new(roots);
        let chain = certificates(TLS_CERTIFICATE_FILE, self.certificate)?;
        let key = PrivateKeyDer::from_pem_slice(self.key).map_err(|error| wrong(TLS_KEY_FILE, &error))?;
        let Some((certificate, others)) = chain.split_first() else { return Ok(()) };
        CertifiedKey::from_der(chain.clone(), key, &provider).map_err(|error| wrong(TLS_KEY_FILE, &error))?;

        let of_certificate = |error: &dyn Display| wrong(TLS_CERTIFICATE_FILE, error);
        let name = ServerName::try_from(EXCHANGE_TLS_NAME).map_err(|error| of_certificate(&error))?;
        let now = UnixTime::since_unix_epoch(Duration::from_secs(u64::try_from(at.as_second()).unwrap_or(0)));
        let server = WebPkiServerVerifier::builder_with_provider(roots.clone(), provider.clone());
        let server = server.build().map_err(|error| wrong(TLS_AUTHORITY_FILE, &error))?;
        let client = WebPkiClientVerifier::builder_with_provider(roots, provider);
        let client = client.build().map_err(|error| wrong(TLS_AUTHORITY_FILE, &error))?;
        server
            .verify_server_cert(certificate, others, &name, &[], now)
            .map_err(|error| of_certificate(&error))?;
        client.verify_client_cert(certificate, others, now).map_err(|error| of_certificate(&error))?;
        Ok(())
    }
}

fn certificates(file: &str, pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, String> {
    let all: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    let all = all.map_err(|error| wrong(file, &error))?;
    if all.is_empty() { Err(wrong(file, &"it has no certificate")) } else { Ok(all) }
}

fn wrong(file: &str, error: &dyn Display) -> String {
    format!("{file} is of no use: {error}")
}

#[cfg(test)]
mod tests {
    use super::super::pem::Pair;
    use super::*;
    use coterie_operator_core::observed::Validity;
    use jiff::SignedDuration;

    fn at(day: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + day * 86_400).unwrap()
    }

    fn pair() -> Pair {
        Pair::make(Validity { from: at(0), to: at(0) + SignedDuration::from_hours(720) }).unwrap()
    }

    fn obstacle(pair: &Pair, day: i64) -> Option<String> {
        let contents = Contents {
            authorities: pair.authority.as_bytes(),
            certificate: pair.certificate.as_bytes(),
            key: pair.key.as_bytes(),
        };
        contents.obstacle(at(day))
    }

    #[test]
    fn what_is_made_is_of_use_for_its_life() {
        let pair = pair();
        assert_eq!((obstacle(&pair, 0), obstacle(&pair, 29)), (None, None));
        assert!(obstacle(&pair, 31).unwrap().starts_with("tls.crt is of no use"));
        assert!(obstacle(&pair, -1).unwrap().starts_with("tls.crt is of no use"));
    }

    #[test]
    fn two_authorities_are_as_good_as_one() {
        let (old, mut new) = (pair(), pair());
        new.authority = old.authority + &new.authority;
        assert_eq!(obstacle(&new, 1), None);
    }

    #[test]
    fn whatever_is_damaged_is_named() {
        let told = |damage: fn(&mut Pair)| {
            let mut pair = pair();
            damage(&mut pair);
            obstacle(&pair, 1).unwrap()
        };
        assert!(
            told(|pair| pair.authority.clear()).starts_with("ca.crt is of no use: it has no certificate")
        );
        assert!(told(|pair| pair.certificate = "garbage".into()).starts_with("tls.crt is of no use"));
        assert!(told(|pair| pair.certificate.truncate(200)).starts_with("tls.crt is of no use"));
        assert!(told(|pair| pair.key = "garbage".into()).starts_with("tls.key is of no use"));
        let other_key = told(|changed| changed.key = pair().key);
        assert!(other_key.starts_with("tls.key is of no use"), "{other_key}");
        let other_authority = told(|changed| changed.authority = pair().authority);
        assert!(other_authority.starts_with("tls.crt is of no use"), "{other_authority}");
        let other_name = told(|pair| {
            let key = rcgen::KeyPair::from_pem(&pair.key).unwrap();
            let params = rcgen::CertificateParams::new(["somebody.example".to_owned()]).unwrap();
            pair.certificate = params.self_signed(&key).unwrap().pem();
            pair.authority.clone_from(&pair.certificate);
        });
        assert!(other_name.starts_with("tls.crt is of no use"), "{other_name}");
    }
}
