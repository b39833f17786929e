//! What is seen of the certificates of the exchange. What they are made of never leaves the shell.

use super::pod::controller_uid;
use coterie_api::name::{ANNOTATION_NEXT_VALID, ANNOTATION_VALID};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

/// The Secret with the certificates of the exchange.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum ObservedCertificates {
    /// Nobody looked: they were not needed.
    #[default]
    NotLooked,
    /// There is none.
    Missing,
    /// Somebody else has the name.
    Foreign,
    /// They are ours, and no rank could prove itself by them; why.
    Unusable(String),
    /// There they are.
    Ours {
        /// When the certificate in use is valid, if that can be read.
        valid: Option<Validity>,
        /// When the one is that comes next, if there is one.
        next: Option<Validity>,
    },
}

/// From when to when a certificate is valid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Validity {
    /// When it was made.
    pub from: Timestamp,
    /// When it ends.
    pub to: Timestamp,
}

impl ObservedCertificates {
    /// Of a Secret's metadata; `uid` is the ModelDeployment's.
    pub fn of(metadata: Option<&ObjectMeta>, uid: &str) -> Self {
        let Some(metadata) = metadata else { return ObservedCertificates::Missing };
        if controller_uid(metadata) != Some(uid) {
            return ObservedCertificates::Foreign;
        }
        let validity = |key| metadata.annotations.as_ref()?.get(key)?.parse().ok();
        ObservedCertificates::Ours {
            valid: validity(ANNOTATION_VALID),
            next: validity(ANNOTATION_NEXT_VALID),
        }
    }
}

impl std::fmt::Display for Validity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.from, self.to)
    }
}

impl std::str::FromStr for Validity {
    type Err = jiff::Error;

    fn from_str(text: &str) -> Result<Self, jiff::Error> {
        let (from, to) = text.split_once('/').unwrap_or((text, ""));
        Ok(Self { from: from.parse()?, to: to.parse()? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;

    #[test]
    fn a_secret_is_missing_foreign_or_ours_with_its_times() {
        assert_eq!(ObservedCertificates::of(None, "m"), ObservedCertificates::Missing);
        let mut metadata = ObjectMeta::default();
        assert_eq!(ObservedCertificates::of(Some(&metadata), "m"), ObservedCertificates::Foreign);
        let owner = OwnerReference { uid: "m".into(), controller: Some(true), ..Default::default() };
        metadata.owner_references = Some(vec![owner]);
        let written = "2026-11-01T00:00:00Z/2026-12-01T00:00:00Z";
        metadata.annotations = Some(
            [
                (ANNOTATION_VALID.to_owned(), written.to_owned()),
                (ANNOTATION_NEXT_VALID.to_owned(), "?".into()),
            ]
            .into(),
        );
        let valid: Validity = written.parse().unwrap();
        assert_eq!(valid.to_string(), written);
        let ours = ObservedCertificates::Ours { valid: Some(valid), next: None };
        assert_eq!(ObservedCertificates::of(Some(&metadata), "m"), ours);
        assert!("".parse::<Validity>().is_err() && "2026-11-01T00:00:00Z".parse::<Validity>().is_err());
    }
}
