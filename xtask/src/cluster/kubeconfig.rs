//! Files that tell a client where the API server is and who the client is.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use serde_json::json;

use super::place::Place;

/// Writes a kubeconfig (JSON, which is YAML) for the holder of the certificate `identity`.
pub fn write(place: &Place, path: &Path, identity: &str, server: &str) -> Result<()> {
    let name = format!("coterie-{}", place.name);
    let text = json!({
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": name, "cluster": {"server": server, "certificate-authority": place.pki("ca.crt")}}],
        "users": [{"name": name, "user": {
            "client-certificate": place.pki(&format!("{identity}.crt")),
            "client-key": place.pki(&format!("{identity}.key")),
        }}],
        "contexts": [{"name": name, "context": {"cluster": name, "user": name}}],
        "current-context": name,
    });
    fs::write(path, format!("{text:#}\n")).with_context(|| format!("cannot write {}", path.display()))
}
