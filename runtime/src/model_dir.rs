//! The model folder, before anything in it is read.

use crate::termination::{failed, model_rejected};
use coterie_api::launch::Termination;
use std::fs::metadata;
use std::io::ErrorKind;
use std::path::Path;

/// Refuses a `dir` that is no folder: the first file that is looked for in it would be said to be missing.
pub fn must_be_there(dir: &Path) -> Result<(), Termination> {
    let shown = dir.display();
    match metadata(dir) {
        Ok(found) if found.is_dir() => Ok(()),
        Ok(_) => Err(model_rejected(format!("{shown} is not a folder; give the folder of the model"))),
        Err(error) if error.kind() == ErrorKind::NotFound => {
            Err(model_rejected(format!("the folder {shown} does not exist; give the folder of the model")))
        }
        Err(error) => Err(failed(format!("the folder {shown} could not be looked at: {error}"))),
    }
}
