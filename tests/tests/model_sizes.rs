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
        let mut estimated = sizes.inspection(Device::Cpu);
        if sizes.served_on.is_empty() {
            // Models with running states are planned for any device, and less exactly: of a state its sums alone.
            let near = |estimated: u64, found: u64| estimated.abs_diff(found) * 20 <= found;
            assert!(near(estimated.parameters, found.parameters), "{}", dir.display());
            assert!(near(estimated.weight_bytes.none, found.weight_bytes.none), "{}", dir.display());
            assert!(near(estimated.weight_bytes.int8, found.weight_bytes.int8), "{}", dir.display());
            assert_eq!(estimated.kv_bytes_per_token, found.kv_bytes_per_token, "{}", dir.display());
            compared += 1;
            continue;
        }
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
