//! What a config alone tells of a model that the runtime serves, beside what the runtime itself finds in the weights.

use anyhow::{Context, Result};
use coterie_api::launch::Device;
use coterie_operator_core::model_config;
use std::path::{Path, PathBuf};

#[test]
fn an_estimate_from_the_config_is_what_inspect_finds() -> Result<()> {
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("golden");
    let mut compared = 0;
    for dir in folders(&golden)?.iter().map(|family| folders(family)).collect::<Result<Vec<_>>>()?.concat() {
        let found = coterie_engine::inspect(&dir).with_context(|| dir.display().to_string())?;
        let sizes = model_config::read(&std::fs::read_to_string(dir.join("config.json"))?)
            .with_context(|| dir.display().to_string())?;
        assert_eq!(sizes.served_on, found.devices, "{}", dir.display());
        let mut estimated = sizes.inspection(Device::Cpu);
        estimated.digest.clone_from(&found.digest);
        assert_eq!(estimated, found, "{}", dir.display());
        compared += 1;
    }
    assert!(compared >= 23, "every golden checkpoint was compared: {compared}");
    Ok(())
}

fn folders(dir: &Path) -> Result<Vec<PathBuf>> {
    let entries = std::fs::read_dir(dir)?.map(|entry| Ok(entry?.path())).collect::<Result<Vec<_>>>()?;
    Ok(entries.into_iter().filter(|path| path.is_dir()).collect())
}
