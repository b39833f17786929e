//! What a config alone tells of a model that the runtime serves, beside what the runtime itself finds in the weights.

use anyhow::{Context, Result};
use coterie_api::launch::Device;
use coterie_operator_core::model_config;
use std::path::Path;

#[test]
fn an_estimate_from_the_config_is_what_inspect_finds() -> Result<()> {
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("golden/mixtral");
    let mut compared = 0;
    for case in std::fs::read_dir(&golden)? {
        let dir = case?.path();
        let found = coterie_engine::inspect(&dir).with_context(|| dir.display().to_string())?;
        let sizes = model_config::read(&std::fs::read_to_string(dir.join("config.json"))?)
            .with_context(|| dir.display().to_string())?;
        assert_eq!(sizes.served_on, found.devices, "{}", dir.display());
        let mut estimated = sizes.inspection(Device::Cpu);
        estimated.digest.clone_from(&found.digest);
        assert_eq!(estimated, found, "{}", dir.display());
        compared += 1;
    }
    assert_eq!(compared, 5, "every golden checkpoint was compared");
    Ok(())
}
