//! The cluster's certificate authority and everything it signs. All of it is new at every start.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;

use anyhow::{Context, Result};
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    KeyUsagePurpose,
};

use super::network::{CONTROL_PLANE_IP, KUBERNETES_IP, node_ip};
use super::node::node_name;
use super::place::Place;

/// Writes `ca.crt`, the service-account key pair, and `NAME.crt` with `NAME.key` for each component and node.
pub fn write_all(place: &Place, nodes: usize) -> Result<()> {
    let folder = place.keep.join("pki");
    fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let authority = Authority::new(place)?;
    let api_names = ["kubernetes", "kubernetes.default", "kubernetes.default.svc", "localhost"];
    let api_full = "kubernetes.default.svc.cluster.local";
    let api: Vec<_> =
        api_names.into_iter().chain([api_full, "127.0.0.1", KUBERNETES_IP, CONTROL_PLANE_IP]).collect();
    authority.issue("apiserver", "kube-apiserver", None, &api)?;
    authority.issue("kubelet-client", "kube-apiserver-kubelet-client", Some("system:masters"), &[])?;
    authority.issue("admin", "kubernetes-admin", Some("system:masters"), &[])?;
    authority.issue("controllers", "system:kube-controller-manager", None, &["127.0.0.1"])?;
    authority.issue("scheduler", "system:kube-scheduler", None, &["127.0.0.1"])?;
    authority.issue("proxy", "system:kube-proxy", None, &[])?;
    for node in 0..nodes {
        let name = node_name(node);
        authority.issue(
            &name,
            &format!("system:node:{name}"),
            Some("system:nodes"),
            &[&name, &node_ip(node)],
        )?;
    }
    let accounts = KeyPair::generate()?;
    write(place, "accounts.key", &accounts.serialize_pem())?;
    write(place, "accounts.pub", &accounts.public_key_pem())
}

struct Authority<'a> {
    place: &'a Place,
    issuer: CertifiedIssuer<'static, KeyPair>,
}

impl Authority<'_> {
    fn new(place: &Place) -> Result<Authority<'_>> {
        let mut params = CertificateParams::new(Vec::new())?;
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.distinguished_name.push(DnType::CommonName, "coterie-cluster");
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate()?)?;
        write(place, "ca.crt", &issuer.pem())?;
        write(place, "ca.key", &issuer.key().serialize_pem())?;
        Ok(Authority { place, issuer })
    }

    /// A certificate that serves (for `names`, DNS or IP) and identifies a client.
    fn issue(&self, file: &str, user: &str, group: Option<&str>, names: &[&str]) -> Result<()> {
        let names: Vec<String> = names.iter().map(|name| name.to_string()).collect();
        let mut params = CertificateParams::new(names)?;
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, user);
        if let Some(group) = group {
            params.distinguished_name.push(DnType::OrganizationName, group);
        }
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ClientAuth, ExtendedKeyUsagePurpose::ServerAuth];
        params.use_authority_key_identifier_extension = true;
        let key = KeyPair::generate()?;
        let certificate = params.signed_by(&key, &self.issuer)?;
        write(self.place, &format!("{file}.crt"), &certificate.pem())?;
        write(self.place, &format!("{file}.key"), &key.serialize_pem())
    }
}

/// Keys are for root's eyes only; a certificate does not mind.
fn write(place: &Place, file: &str, pem: &str) -> Result<()> {
    let path = place.pki(file);
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(true).mode(0o600);
    let mut file = options.open(&path).with_context(|| format!("cannot write {path}"))?;
    file.write_all(pem.as_bytes())?;
    Ok(())
}
