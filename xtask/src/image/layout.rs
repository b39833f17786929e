//! The OCI image layout inside a tar: layer, config, manifest, index.
//!
//! The layer is written once, at disk speed: its digest, which names it, is known only afterwards and is then put
//! into the header that was left open for it.

use std::fs::File;
use std::io::{BufWriter, Read, Seek, SeekFrom, Write};
use std::path::Path;

use anyhow::{Context, Result};
use ring::digest;
use serde_json::{Value, json};

use super::layer::{Layer, hex};
use super::tar::{self, Kind};

const LAYER_TYPE: &str = "application/vnd.oci.image.layer.v1.tar";
const CONFIG_TYPE: &str = "application/vnd.oci.image.config.v1+json";
const MANIFEST_TYPE: &str = "application/vnd.oci.image.manifest.v1+json";
const INDEX_TYPE: &str = "application/vnd.oci.image.index.v1+json";

/// The annotation by which containerd names an image that it imports.
const NAME_ANNOTATION: &str = "io.containerd.image.name";

/// An image that a layout tar holds.
#[derive(Debug, PartialEq, Eq)]
pub struct Reference {
    /// Full name with tag.
    pub name: String,
    /// Digest of its manifest (or index), `sha256:…`.
    pub digest: String,
}

/// Writes the image and returns the digest of its manifest.
pub fn write(path: &Path, name: &str, layer: &Layer, config: Value) -> Result<String> {
    let mut tar = BufWriter::with_capacity(1 << 20, File::create(path)?);
    entry(&mut tar, "oci-layout", &json!({"imageLayoutVersion": "1.0.0"}).to_string())?;
    let layer = layer_blob(&mut tar, layer)?;
    let architecture = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    };
    let config = json!({
        "created": "1970-01-01T00:00:00Z",
        "architecture": architecture,
        "os": "linux",
        "config": config,
        "rootfs": {"type": "layers", "diff_ids": [layer["digest"]]},
        "history": [{"created": "1970-01-01T00:00:00Z", "created_by": "cargo xtask"}],
    });
    let config = blob(&mut tar, CONFIG_TYPE, &config)?;
    let manifest =
        json!({"schemaVersion": 2, "mediaType": MANIFEST_TYPE, "config": config, "layers": [layer]});
    let mut manifest = blob(&mut tar, MANIFEST_TYPE, &manifest)?;
    let digest = manifest["digest"].as_str().unwrap_or_default().to_string();
    manifest["annotations"] =
        json!({ NAME_ANNOTATION: name, "org.opencontainers.image.ref.name": tag(name) });
    manifest["platform"] = json!({"architecture": architecture, "os": "linux"});
    let index = json!({"schemaVersion": 2, "mediaType": INDEX_TYPE, "manifests": [manifest]});
    entry(&mut tar, "index.json", &index.to_string())?;
    tar.write_all(&tar::END)?;
    tar.into_inner().map_err(|error| error.into_error())?;
    Ok(digest)
}

/// The images named by the index of a layout tar; empty if it has no index or names none.
pub fn references(path: &Path) -> Result<Vec<Reference>> {
    let mut file = File::open(path).with_context(|| format!("cannot open the image {}", path.display()))?;
    let index =
        find(&mut file, "index.json").with_context(|| format!("cannot read the image {}", path.display()))?;
    let Some(index) = index else { return Ok(Vec::new()) };
    let index: Value =
        serde_json::from_slice(&index).with_context(|| format!("{} is broken", path.display()))?;
    let manifests = index["manifests"].as_array().map(Vec::as_slice).unwrap_or_default();
    let named = manifests.iter().filter_map(|manifest| {
        let name = manifest["annotations"][NAME_ANNOTATION].as_str()?;
        Some(Reference { name: name.into(), digest: manifest["digest"].as_str()?.into() })
    });
    Ok(named.collect())
}

/// Streams the layer and returns its descriptor.
fn layer_blob(tar: &mut BufWriter<File>, layer: &Layer) -> Result<Value> {
    let header_at = tar.stream_position()?;
    tar.write_all(&[0; tar::BLOCK as usize])?;
    let mut hashed = Hashed { out: tar, hash: digest::Context::new(&digest::SHA256), size: 0 };
    layer.write(&mut hashed)?;
    let (hash, size) = (hex(hashed.hash.finish().as_ref()), hashed.size);
    tar.write_all(&[0; tar::BLOCK as usize][..tar::padding(size)])?;
    let end = tar.stream_position()?;
    tar.seek(SeekFrom::Start(header_at))?;
    tar.write_all(&tar::header(&blob_path(&hash), Kind::File, 0o644, size)?)?;
    tar.seek(SeekFrom::Start(end))?;
    Ok(json!({"mediaType": LAYER_TYPE, "digest": format!("sha256:{hash}"), "size": size}))
}

fn blob(tar: &mut impl Write, media_type: &str, value: &Value) -> Result<Value> {
    let text = value.to_string();
    let hash = hex(digest::digest(&digest::SHA256, text.as_bytes()).as_ref());
    entry(tar, &blob_path(&hash), &text)?;
    Ok(json!({"mediaType": media_type, "digest": format!("sha256:{hash}"), "size": text.len()}))
}

fn entry(tar: &mut impl Write, path: &str, text: &str) -> Result<()> {
    tar.write_all(&tar::header(path, Kind::File, 0o644, text.len() as u64)?)?;
    tar::contents(tar, text.as_bytes(), text.len() as u64)
}

fn blob_path(hash: &str) -> String {
    format!("blobs/sha256/{hash}")
}

fn tag(name: &str) -> &str {
    let last = name.rsplit('/').next().unwrap_or(name);
    last.split_once(':').map_or("latest", |(_, tag)| tag)
}

/// The content of the entry called `wanted`; others are skipped, not read.
fn find(file: &mut File, wanted: &str) -> Result<Option<Vec<u8>>> {
    let mut block = [0; tar::BLOCK as usize];
    loop {
        match file.read_exact(&mut block) {
            Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => return Ok(None),
            read => read?,
        }
        let Some((path, size)) = tar::parse(&block)? else { return Ok(None) };
        if path.trim_start_matches("./") == wanted {
            let mut content = Vec::new();
            file.take(size).read_to_end(&mut content)?;
            return Ok(Some(content));
        }
        file.seek(SeekFrom::Current(i64::try_from(size)? + tar::padding(size) as i64))?;
    }
}

/// Hashes and counts what passes through.
struct Hashed<'a, W> {
    out: &'a mut W,
    hash: digest::Context,
    size: u64,
}

impl<W: Write> Write for Hashed<'_, W> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let written = self.out.write(bytes)?;
        self.hash.update(&bytes[..written]);
        self.size += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.out.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image(folder: &Path) -> (std::path::PathBuf, String) {
        let mut layer = Layer::default();
        layer.text("/config.json", "{}".into());
        layer.text("/weights/model.bin", "w".repeat(1000));
        let path = folder.join("image.tar");
        let digest = write(&path, "localhost/tiny:1", &layer, json!({"User": "65532:65532"})).unwrap();
        (path, digest)
    }

    fn read_blob(path: &Path, digest: &str) -> Vec<u8> {
        let hash = digest.strip_prefix("sha256:").unwrap();
        find(&mut File::open(path).unwrap(), &blob_path(hash)).unwrap().expect("the blob is in the tar")
    }

    #[test]
    fn every_descriptor_matches_the_bytes_it_names() {
        let folder = tempfile::tempdir().unwrap();
        let (path, digest) = image(folder.path());
        let manifest: Value = serde_json::from_slice(&read_blob(&path, &digest)).unwrap();
        let layers = manifest["layers"].as_array().unwrap();
        for descriptor in layers.iter().chain([&manifest["config"]]) {
            let bytes = read_blob(&path, descriptor["digest"].as_str().unwrap());
            assert_eq!(descriptor["size"], bytes.len());
            let hash = hex(digest::digest(&digest::SHA256, &bytes).as_ref());
            assert_eq!(descriptor["digest"], format!("sha256:{hash}"));
        }
        let config: Value =
            serde_json::from_slice(&read_blob(&path, manifest["config"]["digest"].as_str().unwrap()))
                .unwrap();
        assert_eq!(config["rootfs"]["diff_ids"][0], layers[0]["digest"], "the layer is not compressed");
        assert_eq!(config["config"]["User"], "65532:65532");
    }

    #[test]
    fn the_index_names_the_image() {
        let folder = tempfile::tempdir().unwrap();
        let (path, digest) = image(folder.path());
        assert_eq!(references(&path).unwrap(), [Reference { name: "localhost/tiny:1".into(), digest }]);
    }

    #[test]
    fn writing_again_gives_the_same_bytes() {
        let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let (first, second) = (image(one.path()).0, image(two.path()).0);
        assert_eq!(std::fs::read(first).unwrap(), std::fs::read(second).unwrap());
    }

    #[test]
    fn what_is_no_tar_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("image.tar");
        std::fs::write(&path, [b'x'; 2048]).unwrap();
        assert!(format!("{:#}", references(&path).unwrap_err()).contains("not a tar"));
    }

    #[test]
    fn tags_are_found_behind_a_port() {
        assert_eq!(tag("localhost:5000/a:1"), "1");
        assert_eq!(tag("localhost:5000/a"), "latest");
    }
}
