//! Where the kernels' machine code for GPUs lies: beside the program, as an image has it.

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
