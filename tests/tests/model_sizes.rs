//! What a config alone tells of a model that the runtime serves, beside what the runtime itself finds in the weights.

use anyhow::{Context, Result};
use coterie_api::launch::{Device, Inspection};
use coterie_engine::model::config::Config;
use coterie_engine::model::{running_state_bytes, state_bytes_per_token};
use coterie_operator_core::model_config;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};

const RELEASED_MINIMAX: [&str; 2] = ["MiniMaxText01ForCausalLM", "MiniMaxM1ForCausalLM"];

#[test]
fn an_estimate_from_the_config_is_what_inspect_finds() -> Result<()> {
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("golden");
    let mut compared = 0;
    for dir in folders(&golden)?.iter().map(|family| folders(family)).collect::<Result<Vec<_>>>()?.concat() {
        let found = coterie_engine::inspect(&dir).with_context(|| dir.display().to_string())?;
        let config = std::fs::read_to_string(dir.join("config.json"))?;
        let sizes = model_config::read(&config).with_context(|| dir.display().to_string())?;
        let mut estimated = sizes.inspection(Device::Cpu);
        estimated.digest.clone_from(&found.digest);
        // All have kernels for GPUs, but no image has their machine code yet, and estimates are of what can be installed.
        assert_eq!(found.devices, [Device::Cpu, Device::Gpu], "{}", dir.display());
        estimated.devices.clone_from(&found.devices);
        if found.draft_module.is_none() {
            // Most of their configs promise a module that is not there; the test below is about those.
            estimated.draft_module = None;
        }
        if RELEASED_MINIMAX.contains(&found.architecture.as_str()) {
            // As released their gates are f32. The golden checkpoints have bf16 throughout, two bytes a value less.
            let wider = 2 * gate_values(&config, &found)?;
            estimated.weight_bytes.none -= wider;
            estimated.weight_bytes.int8 -= wider;
            estimated.weight_bytes.int4 = estimated.weight_bytes.int4.map(|int4| int4 - wider);
        }
        assert_eq!(estimated, found, "{}", dir.display());
        compared += 1;
    }
    assert!(compared >= 35, "every golden checkpoint was compared: {compared}");
    Ok(())
}

#[test]
fn a_draft_module_takes_what_the_config_tells() -> Result<()> {
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("golden");
    let mut compared = 0;
    for family in ["deepseek_v3", "pangu_ultra_moe", "glm4_moe"] {
        for golden in folders(&golden.join(family))? {
            let mut config: Value =
                serde_json::from_str(&std::fs::read_to_string(golden.join("config.json"))?)?;
            config["num_nextn_predict_layers"] = 1.into();
            let layers = config["num_hidden_layers"].as_u64().context("num_hidden_layers is a number")?;
            let index =
                json!({"weight_map": {format!("model.layers.{layers}.eh_proj.weight"): "a.safetensors"}});
            let dir = tempfile::tempdir()?;
            std::fs::write(dir.path().join("config.json"), config.to_string())?;
            std::fs::write(dir.path().join("model.safetensors.index.json"), index.to_string())?;
            let found = coterie_engine::describe(dir.path())?.context("there is an index and no weights")?;
            let sizes = model_config::read(&config.to_string())?;
            let estimated = sizes.inspection(Device::Cpu).draft_module;
            assert!(estimated.is_some() && estimated == found.model.draft_module, "{}", golden.display());
            compared += 1;
        }
    }
    assert!(compared >= 9, "every golden checkpoint of the three was compared: {compared}");
    Ok(())
}

/// What docs/plans.md plans from: without weights, but by the runtime's own arithmetic.
#[test]
fn the_models_of_worked_plans_are_read_by_the_runtime_alike() -> Result<()> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let plans = ["deepseek-v3", "pangu-ultra-moe", "qwen3-30b-a3b"];
    let plans = plans.map(|name| format!("operator/tests/plan/{name}.json"));
    for path in ["examples/minimax-text-01/config.json".to_owned()].iter().chain(&plans) {
        let dir = tempfile::tempdir()?;
        let written = dir.path().join("config.json");
        std::fs::copy(root.join(path), &written)?;
        let config = Config::read(dir.path())?;
        let sizes = model_config::read(&std::fs::read_to_string(written)?)?;
        let estimated = sizes.inspection(Device::Cpu);
        let layers = [config.layers.len(), config.expert_layers().count()];
        assert_eq!(layers, [sizes.layers, sizes.expert_layers].map(|count| count as usize), "{path}");
        let bytes = [state_bytes_per_token(&config), running_state_bytes(&config)];
        assert_eq!(bytes, [estimated.kv_bytes_per_token, estimated.state_bytes].map(|bytes| bytes as usize));
    }
    Ok(())
}

fn gate_values(config: &str, found: &Inspection) -> Result<u64> {
    let config: Value = serde_json::from_str(config)?;
    let hidden = config["hidden_size"].as_u64().context("hidden_size is a number")?;
    Ok(hidden * u64::from(found.experts) * u64::from(found.layers))
}

fn folders(dir: &Path) -> Result<Vec<PathBuf>> {
    let entries = std::fs::read_dir(dir)?.map(|entry| Ok(entry?.path())).collect::<Result<Vec<_>>>()?;
    Ok(entries.into_iter().filter(|path| path.is_dir()).collect())
}
