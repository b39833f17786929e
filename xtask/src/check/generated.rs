//! Files that are made from code are committed, so that people can read them; here is proof that they are fresh.

use super::Finding;
use crate::product;
use anyhow::{Context, Result, ensure};
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

/// Where the CRDs are kept: for people, and for the chart, which may read only files of its own folder.
const COPIES: [&str; 2] = ["crds/coterie.dev.yaml", "charts/coterie/files/crds/coterie.dev.yaml"];

/// Reports files that differ from what the code says.
pub fn check(root: &Path) -> Result<Vec<Finding>> {
    let crds = crds()?;
    Ok(stale(&crds, |path| fs::read_to_string(root.join(path)).ok()))
}

/// Writes them anew.
pub fn write(root: &Path) -> Result<()> {
    let crds = crds()?;
    for path in COPIES {
        let path = root.join(path);
        let folder = path.parent().context("a file is in a folder")?;
        fs::create_dir_all(folder)
            .and_then(|()| fs::write(&path, &crds))
            .with_context(|| format!("cannot write {}", path.display()))?;
        println!("wrote {}", path.display());
    }
    Ok(())
}

fn crds() -> Result<String> {
    let operator = product::programs()?.join("coterie-operator");
    let output = Command::new(operator).arg("crds").stderr(Stdio::inherit()).output();
    let output = output.context("cannot run coterie-operator crds")?;
    ensure!(output.status.success(), "`coterie-operator crds` failed, see above");
    let crds = String::from_utf8(output.stdout)?;
    ensure!(crds.contains("kind: CustomResourceDefinition"), "`coterie-operator crds` printed no CRD");
    Ok(crds)
}

fn stale(crds: &str, committed: impl Fn(&str) -> Option<String>) -> Vec<Finding> {
    COPIES
        .iter()
        .filter(|path| committed(path).as_deref() != Some(crds))
        .map(|path| {
            Finding::new(
                *path,
                "it is not what the code in api/ says",
                "run `cargo xtask generate` and commit the result",
            )
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stale_or_missing_copy_is_found() {
        assert_eq!(stale("new", |_| Some("new".into())), []);
        assert_eq!(stale("new", |path| (path == COPIES[0]).then(|| "new".into())).len(), 1);
        assert_eq!(stale("new", |_| Some("old".into())).len(), 2);
    }
}
