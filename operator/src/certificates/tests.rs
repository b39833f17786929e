use super::*;
use jiff::SignedDuration;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;

fn validity(day: i64) -> Validity {
    let at = |day: i64| Timestamp::from_second(1_800_000_000 + day * 86_400).unwrap();
    Validity { from: at(day), to: at(day) + SignedDuration::from_hours(720) }
}

/// The Secret after a merge patch, as the API server would give it back.
fn patched(secret: &Secret, step: CertificateStep) -> Secret {
    let mut value = json!(secret);
    let patch = patch(secret, step).unwrap();
    for (part, at) in [("data", "/data"), ("annotations", "/metadata/annotations")] {
        let changes = if part == "data" { &patch["data"] } else { &patch["metadata"]["annotations"] };
        let there = value.pointer_mut(at).unwrap().as_object_mut().unwrap();
        for (key, change) in changes.as_object().unwrap() {
            match change {
                Value::Null => _ = there.remove(key),
                change => _ = there.insert(key.clone(), change.clone()),
            }
        }
    }
    serde_json::from_value(value).unwrap()
}

fn made() -> Secret {
    let pair = Pair::make(validity(0)).unwrap();
    let contents = [("ca.crt", pair.authority), ("tls.crt", pair.certificate), ("tls.key", pair.key)];
    let entry = |(key, text): (&str, String)| (key.to_owned(), ByteString(text.into_bytes()));
    Secret {
        metadata: ObjectMeta {
            annotations: Some([(ANNOTATION_VALID.to_owned(), validity(0).to_string())].into()),
            ..ObjectMeta::default()
        },
        data: Some(contents.into_iter().map(entry).collect()),
        ..Secret::default()
    }
}

fn text(secret: &Secret, key: &str) -> Option<String> {
    Some(String::from_utf8(secret.data.as_ref()?.get(key)?.0.clone()).unwrap())
}

fn annotation(secret: &Secret, key: &str) -> Option<String> {
    secret.metadata.annotations.as_ref()?.get(key).cloned()
}

#[test]
fn the_next_is_trusted_before_it_is_used_and_the_last_stays_trusted() {
    let first = made();
    let announced = patched(&first, CertificateStep::Announce(validity(15)));
    assert_eq!(text(&announced, "tls.crt"), text(&first, "tls.crt"));
    let trusted = pem::blocks(&text(&announced, "ca.crt").unwrap());
    assert_eq!((trusted.len(), Some(&trusted[0])), (2, text(&first, "ca.crt").as_ref()));
    assert_eq!(annotation(&announced, ANNOTATION_VALID), Some(validity(0).to_string()));
    assert_eq!(annotation(&announced, ANNOTATION_NEXT_VALID), Some(validity(15).to_string()));

    let switched = patched(&announced, CertificateStep::Switch(validity(15)));
    assert_eq!(text(&switched, "tls.crt"), text(&announced, "next.crt"));
    assert_eq!(text(&switched, "tls.key"), text(&announced, "next.key"));
    assert_eq!((text(&switched, "next.crt"), text(&switched, "next.key")), (None, None));
    let still = pem::blocks(&text(&switched, "ca.crt").unwrap());
    assert_eq!(still, [trusted[1].clone(), trusted[0].clone()], "that of the certificate in use comes first");
    assert_eq!(annotation(&switched, ANNOTATION_VALID), Some(validity(15).to_string()));
    assert_eq!(annotation(&switched, ANNOTATION_NEXT_VALID), None);

    let again = patched(&switched, CertificateStep::Announce(validity(30)));
    let trusted_now = pem::blocks(&text(&again, "ca.crt").unwrap());
    assert_eq!((trusted_now.len(), &trusted_now[0]), (2, &still[0]), "the first is forgotten");
}

#[test]
fn a_next_certificate_that_somebody_took_away_is_made_anew() {
    let mut announced = patched(&made(), CertificateStep::Announce(validity(15)));
    announced.data.as_mut().unwrap().remove("next.key");
    let anew = patched(&announced, CertificateStep::Switch(validity(15)));
    assert_eq!(pem::blocks(&text(&anew, "ca.crt").unwrap()).len(), 1);
    assert_ne!(text(&anew, "tls.crt"), text(&announced, "tls.crt"));
    assert_eq!(text(&anew, "next.crt"), None);
}

#[test]
fn a_damaged_next_certificate_takes_nobody_s_place() {
    let mut announced = patched(&made(), CertificateStep::Announce(validity(15)));
    announced.data.as_mut().unwrap().insert("next.crt".into(), ByteString(b"garbage".to_vec()));
    let anew = patched(&announced, CertificateStep::Switch(validity(15)));
    assert_eq!(pem::blocks(&text(&anew, "ca.crt").unwrap()).len(), 1);
    assert_ne!(text(&anew, "tls.crt"), text(&announced, "tls.crt"));
}

#[test]
fn a_secret_that_is_of_no_use_is_seen_as_such_and_mended() {
    let mut secret = made();
    let owner = OwnerReference { uid: "m".into(), controller: Some(true), ..Default::default() };
    secret.metadata.owner_references = Some(vec![owner]);
    let (now, later) = (validity(1).from, validity(40).from);
    let ours = ObservedCertificates::Ours { valid: Some(validity(0)), next: None };
    assert_eq!(seen(Some(&secret), "m", now), ours);
    assert_eq!(seen(Some(&secret), "m", later), ours, "that they ended is in their times");
    assert_eq!(seen(Some(&secret), "other", now), ObservedCertificates::Foreign);
    assert_eq!(seen(None, "m", now), ObservedCertificates::Missing);
    let mut damaged = secret.clone();
    damaged.data.as_mut().unwrap().insert("tls.key".into(), made().data.unwrap()["tls.key"].clone());
    assert!(
        matches!(seen(Some(&damaged), "m", now), ObservedCertificates::Unusable(why) if why.starts_with("tls.key"))
    );
    let mended = patched(&damaged, CertificateStep::MakeAnew(validity(1)));
    assert!(matches!(seen(Some(&mended), "m", now), ObservedCertificates::Ours { next: None, .. }));
    secret.data = None;
    assert!(matches!(seen(Some(&secret), "m", now), ObservedCertificates::Unusable(_)));
}
