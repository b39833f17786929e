//! Container images as OCI layout tars, made without a container engine: from a binary and the shared libraries it
//! needs, or from a folder of weights. The same input gives the same digest.

mod layer;
mod layout;
mod libraries;
mod pause;
mod tar;

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde_json::{Value, json};

pub use layout::{Reference, references};
pub use pause::{PAUSE, pause};

use crate::cache;
use crate::step::Step;
use layer::Layer;

/// An image in a tar, ready to be imported.
pub struct Image {
    /// The full name, for example `localhost/coterie:dev`.
    pub name: String,
    /// The OCI layout tar.
    pub tar: PathBuf,
    /// Digest of the manifest, `sha256:…`: what a node calls the image's ID.
    pub digest: String,
}

/// The user that an image's program runs as, by number, so that `runAsNonRoot` can be checked.
const USER: u32 = 65532;

/// An image that holds `binary` at `install_at` (its entrypoint), the libraries it needs at their own paths, a
/// non-root user and a writable `/tmp`.
pub fn from_binary(name: &str, binary: &Path, install_at: &str) -> Result<Image> {
    let mut layer = Layer::default();
    layer.file(install_at, 0o755, binary)?;
    for library in libraries::of(binary)? {
        layer.file(&library.to_string_lossy(), 0o755, &library)?;
    }
    let user =
        format!("root:x:0:0:root:/:/sbin/nologin\nnonroot:x:{USER}:{USER}:nonroot:/tmp:/sbin/nologin\n");
    layer.text("/etc/passwd", user);
    layer.text("/etc/group", format!("root:x:0:\nnonroot:x:{USER}:\n"));
    layer.text("/etc/nsswitch.conf", "hosts: files dns\n".into());
    layer.directory("/tmp", 0o1777);
    build(
        name,
        &layer,
        json!({
            "User": format!("{USER}:{USER}"),
            "Env": ["PATH=/usr/local/bin:/usr/bin:/bin"],
            "Entrypoint": [install_at],
            "WorkingDir": "/",
        }),
    )
}

/// An image whose root holds the files below `folder`, as one uncompressed layer: what an image volume mounts.
pub fn from_folder(name: &str, folder: &Path) -> Result<Image> {
    let mut layer = Layer::default();
    layer.tree(folder)?;
    build(name, &layer, json!({}))
}

/// Writes the tar unless the one in the cache was made from the very same files.
fn build(name: &str, layer: &Layer, config: Value) -> Result<Image> {
    let step = Step::start(format!("image {name}"));
    let tar = cache::folder("images")?.join(format!("{}.tar", name.replace(['/', ':'], "_")));
    let stamp = tar.with_extension("stamp");
    let key = layer.key(&format!("{name} {config}"))?;
    if let Some(digest) = stamped(&stamp, &key).filter(|_| tar.is_file()) {
        step.cached();
        return Ok(Image { name: name.into(), tar, digest });
    }
    let unfinished = tar.with_extension("unfinished");
    let digest = layout::write(&unfinished, name, layer, config)
        .with_context(|| format!("cannot write image {name} to {}", unfinished.display()))?;
    fs::rename(&unfinished, &tar).with_context(|| format!("cannot place {}", tar.display()))?;
    fs::write(&stamp, format!("{key}\n{digest}\n"))?;
    step.done();
    Ok(Image { name: name.into(), tar, digest })
}

/// The digest in a stamp file, if the stamp was written for `key`.
fn stamped(stamp: &Path, key: &str) -> Option<String> {
    let text = fs::read_to_string(stamp).ok()?;
    let mut lines = text.lines();
    (lines.next() == Some(key)).then(|| lines.next().map(str::to_string)).flatten()
}
