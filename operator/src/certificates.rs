//! The certificates of the exchange: made here, kept in a Secret, when is decided in the core.
//!
//! Secrets are not watched, so that the operator needs no right to list them: each is read by its name, and what was
//! read counts for a while. Of its contents only whether they are of use is kept.

mod pem;
mod usable;

use crate::controller::Context;
use crate::error::{Error, is_refusal, words};
use coterie_api::name::{
    ANNOTATION_NEXT_VALID, ANNOTATION_VALID, FIELD_MANAGER, LABEL_DEPLOYMENT, TLS_AUTHORITY_FILE,
    TLS_CERTIFICATE_FILE, TLS_KEY_FILE, TLS_NEXT_CERTIFICATE, TLS_NEXT_KEY,
};
use coterie_operator_core::Deployment;
use coterie_operator_core::objects::exchange_tls_name;
use coterie_operator_core::observed::{ObservedCertificates, Validity};
use coterie_operator_core::plan::certificates::{CertificateChange, CertificateStep};
use jiff::Timestamp;
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use kube::Client;
use kube::api::{Api, ObjectMeta, Patch, PatchParams, PostParams};
use pem::Pair;
use serde_json::{Value, json};
use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::time::Instant;
use usable::Contents;

/// How long what was read counts. Nobody but the operator should write it.
const FRESH: Duration = Duration::from_secs(60);

/// What was read, by the uid of the ModelDeployment.
#[derive(Debug, Default)]
pub struct Certificates {
    read: Mutex<HashMap<String, (Instant, ObservedCertificates)>>,
}

impl Certificates {
    /// What there is, from memory if that is fresh.
    pub async fn look(
        &self,
        client: &Client,
        deployment: &Deployment,
    ) -> Result<ObservedCertificates, Error> {
        if let Some((at, seen)) = self.lock().get(&deployment.uid)
            && at.elapsed() < FRESH
        {
            return Ok(seen.clone());
        }
        let name = exchange_tls_name(&deployment.name);
        let secrets: Api<Secret> = Api::namespaced(client.clone(), &deployment.namespace);
        let found = secrets.get_opt(&name).await;
        let found =
            found.map_err(|cause| Error::ReadSecret { name: name.clone(), cause: Box::new(cause) })?;
        let seen = seen(found.as_ref(), &deployment.uid, Timestamp::now());
        if let ObservedCertificates::Unusable(why) = &seen {
            tracing::warn!(secret = name, why, "the exchange's certificates are of no use");
        }
        if matches!(seen, ObservedCertificates::Ours { .. }) {
            self.remember(deployment, seen.clone());
        }
        Ok(seen)
    }

    fn remember(&self, deployment: &Deployment, seen: ObservedCertificates) {
        let mut read = self.lock();
        read.retain(|_, (at, _)| at.elapsed() < FRESH);
        read.insert(deployment.uid.clone(), (Instant::now(), seen));
    }

    fn forget(&self, deployment: &Deployment) {
        self.lock().remove(&deployment.uid);
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, (Instant, ObservedCertificates)>> {
        self.read.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A Secret as the plan sees it: nothing of its contents but whether they are of use.
fn seen(secret: Option<&Secret>, uid: &str, now: Timestamp) -> ObservedCertificates {
    let seen = ObservedCertificates::of(secret.map(|secret| &secret.metadata), uid);
    let has_ended = |valid: &Validity| valid.to <= now;
    match (&seen, secret) {
        // That they ended is known, and what is to be done then.
        (ObservedCertificates::Ours { valid, .. }, Some(secret))
            if !valid.as_ref().is_some_and(has_ended) =>
        {
            let part = |key| part(secret, key);
            let (certificate, key) = (part(TLS_CERTIFICATE_FILE), part(TLS_KEY_FILE));
            let contents = Contents { authorities: part(TLS_AUTHORITY_FILE), certificate, key };
            contents.obstacle(now).map_or(seen, ObservedCertificates::Unusable)
        }
        _ => seen,
    }
}

fn part<'a>(secret: &'a Secret, key: &str) -> &'a [u8] {
    secret.data.as_ref().and_then(|all| all.get(key)).map_or(&[], |bytes| bytes.0.as_slice())
}

/// Does one step. Who was faster is no error: the next look tells.
pub async fn change(
    context: &Context,
    deployment: &Deployment,
    change: &CertificateChange,
) -> Result<(), ChangeError> {
    let secrets: Api<Secret> = Api::namespaced(context.operator.client.clone(), &deployment.namespace);
    let written = match change.step {
        CertificateStep::Make(validity) => {
            let secret = secret(deployment, &change.name, validity)?;
            context.operator.metrics.wrote("create", "Secret");
            let params =
                PostParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PostParams::default() };
            secrets.create(&params, &secret).await
        }
        step => {
            let Some(there) = secrets.get_opt(&change.name).await? else {
                context.certificates.forget(deployment);
                return Ok(());
            };
            // Damaged since it was last looked at: only making them anew leads to anything of use.
            if !matches!(step, CertificateStep::MakeAnew(_))
                && let ObservedCertificates::Unusable(_) =
                    seen(Some(&there), &deployment.uid, Timestamp::now())
            {
                context.certificates.forget(deployment);
                return Ok(());
            }
            let patch = patch(&there, step)?;
            context.operator.metrics.wrote("patch", "Secret");
            let params =
                PatchParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PatchParams::default() };
            secrets.patch(&change.name, &params, &Patch::Merge(patch)).await
        }
    };
    match written {
        Ok(written) => {
            tracing::info!(secret = change.name, step = ?change.step, "changed the exchange's certificates");
            let seen = ObservedCertificates::of(Some(&written.metadata), &deployment.uid);
            context.certificates.remember(deployment, seen);
            Ok(())
        }
        Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => {
            context.certificates.forget(deployment);
            Ok(())
        }
        Err(error) => Err(error.into()),
    }
}

/// Why certificates could not be changed.
pub enum ChangeError {
    /// The API server refused it; its words.
    Refused(String),
    /// It did not answer, or no certificate could be made.
    Failed(String),
}

impl From<kube::Error> for ChangeError {
    fn from(error: kube::Error) -> Self {
        if is_refusal(&error) {
            ChangeError::Refused(words(&error))
        } else {
            ChangeError::Failed(words(&error))
        }
    }
}

impl From<rcgen::Error> for ChangeError {
    fn from(error: rcgen::Error) -> Self {
        ChangeError::Failed(error.to_string())
    }
}

fn secret(deployment: &Deployment, name: &str, validity: Validity) -> Result<Secret, rcgen::Error> {
    let pair = Pair::make(validity)?;
    let contents = [
        (TLS_AUTHORITY_FILE, pair.authority),
        (TLS_CERTIFICATE_FILE, pair.certificate),
        (TLS_KEY_FILE, pair.key),
    ];
    let bytes = |(key, text): (&str, String)| (key.to_owned(), ByteString(text.into_bytes()));
    Ok(Secret {
        metadata: ObjectMeta {
            name: Some(name.to_owned()),
            labels: Some([(LABEL_DEPLOYMENT.to_owned(), deployment.name.clone())].into()),
            annotations: Some([(ANNOTATION_VALID.to_owned(), validity.to_string())].into()),
            owner_references: Some(vec![deployment.owner.clone()]),
            ..ObjectMeta::default()
        },
        type_: Some("kubernetes.io/tls".to_owned()),
        data: Some(contents.into_iter().map(bytes).collect()),
        ..Secret::default()
    })
}

/// The change of a Secret that was just read, for exactly that version of it.
fn patch(there: &Secret, step: CertificateStep) -> Result<Value, rcgen::Error> {
    let text = |key: &str| {
        let bytes = there.data.as_ref().and_then(|all| all.get(key));
        bytes.and_then(|bytes| String::from_utf8(bytes.0.clone()).ok())
    };
    let next_is_usable = |validity: Validity| {
        let (certificate, key) = (part(there, TLS_NEXT_CERTIFICATE), part(there, TLS_NEXT_KEY));
        let contents = Contents { authorities: part(there, TLS_AUTHORITY_FILE), certificate, key };
        contents.obstacle(validity.from).is_none()
    };
    let authorities = pem::blocks(&text(TLS_AUTHORITY_FILE).unwrap_or_default());
    let anew = |validity: Validity| {
        let pair = Pair::make(validity)?;
        Ok((
            [(ANNOTATION_VALID, Some(validity.to_string())), (ANNOTATION_NEXT_VALID, None)],
            vec![
                (TLS_AUTHORITY_FILE, Some(pair.authority)),
                (TLS_CERTIFICATE_FILE, Some(pair.certificate)),
                (TLS_KEY_FILE, Some(pair.key)),
                (TLS_NEXT_CERTIFICATE, None),
                (TLS_NEXT_KEY, None),
            ],
        ))
    };
    let (annotations, contents) = match step {
        CertificateStep::Make(validity) | CertificateStep::MakeAnew(validity) => anew(validity)?,
        // The authority of the certificate in use comes first.
        CertificateStep::Announce(validity) => {
            let next = Pair::make(validity)?;
            let present = authorities.first().cloned().unwrap_or_default();
            let valid = there.metadata.annotations.as_ref().and_then(|all| all.get(ANNOTATION_VALID));
            (
                [(ANNOTATION_VALID, valid.cloned()), (ANNOTATION_NEXT_VALID, Some(validity.to_string()))],
                vec![
                    (TLS_AUTHORITY_FILE, Some(present + &next.authority)),
                    (TLS_NEXT_CERTIFICATE, Some(next.certificate)),
                    (TLS_NEXT_KEY, Some(next.key)),
                ],
            )
        }
        CertificateStep::Switch(validity) => match (text(TLS_NEXT_CERTIFICATE), text(TLS_NEXT_KEY)) {
            (Some(certificate), Some(key)) if next_is_usable(validity) => (
                [(ANNOTATION_VALID, Some(validity.to_string())), (ANNOTATION_NEXT_VALID, None)],
                vec![
                    (TLS_AUTHORITY_FILE, Some(authorities.into_iter().rev().collect())),
                    (TLS_CERTIFICATE_FILE, Some(certificate)),
                    (TLS_KEY_FILE, Some(key)),
                    (TLS_NEXT_CERTIFICATE, None),
                    (TLS_NEXT_KEY, None),
                ],
            ),
            // Somebody took them away, or damaged them.
            _ => anew(validity)?,
        },
    };
    let encoded = |text: String| json!(ByteString(text.into_bytes()));
    let contents: HashMap<&str, Option<Value>> =
        contents.into_iter().map(|(key, text)| (key, text.map(encoded))).collect();
    let annotations: HashMap<&str, Option<String>> = annotations.into_iter().collect();
    Ok(json!({
        "metadata": {"resourceVersion": there.metadata.resource_version, "annotations": annotations},
        "data": contents,
    }))
}

#[cfg(test)]
mod tests;
