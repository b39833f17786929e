//! Where the kernels' machine code for GPUs lies: beside the program, as an image has it.

use coterie_engine::backend::cuda::ARCHITECTURES;
use std::path::{Path, PathBuf};

/// From the program's folder.
const BESIDE: &str = "../share/coterie/cubins";

/// The folder that was named, or the one beside the program. It need not be there.
pub fn folder(named: Option<&Path>) -> PathBuf {
    if let Some(named) = named {
        return named.to_owned();
    }
    let program = std::env::current_exe().unwrap_or_default();
    program.parent().unwrap_or(Path::new("")).join(BESIDE)
}

/// Does this build serve on GPUs: is there code for every architecture?
pub fn are_in(folder: &Path) -> bool {
    ARCHITECTURES.iter().all(|architecture| folder.join(architecture).is_dir())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn code_for_every_architecture_makes_a_build_for_gpus() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(folder(Some(dir.path())), dir.path());
        assert!(folder(None).ends_with(BESIDE));
        for architecture in ARCHITECTURES {
            assert!(!are_in(dir.path()), "{architecture} is missing");
            std::fs::create_dir(dir.path().join(architecture)).unwrap();
        }
        assert!(are_in(dir.path()));
    }
}
