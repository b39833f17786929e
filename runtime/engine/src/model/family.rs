//! The model families of this build: one file each turns the keys of its config.json into a description.

mod deepseek;
mod glm;
mod gpt_oss;
mod minimax_m2;
mod minimax_text;
mod mixtral;
mod olmoe;
mod pangu;
mod qwen;

use crate::load_error::LoadError;
use crate::model::config::ConfigRule;
use crate::model::config::keys::Keys;
use crate::model::config::plan::{LayerPlan, Names};
use coterie_api::nearest::nearest;
use std::path::Path;

/// What is special about a family.
pub struct Family {
    /// As config.json spells it.
    pub architecture: &'static str,
    /// What its tensors are called.
    pub names: Names,
    /// What its layers compute.
    pub layers: fn(&Keys) -> Result<Vec<LayerPlan>, ConfigRule>,
}

const FAMILIES: [Family; 13] = [
    Family { architecture: "MixtralForCausalLM", names: mixtral::NAMES, layers: mixtral::layers },
    Family { architecture: "Qwen3MoeForCausalLM", names: qwen::NAMES, layers: qwen::layers_of_3 },
    Family { architecture: "Qwen2MoeForCausalLM", names: qwen::NAMES, layers: qwen::layers_of_2 },
    Family { architecture: "OlmoeForCausalLM", names: olmoe::NAMES, layers: olmoe::layers },
    Family { architecture: "Glm4MoeForCausalLM", names: glm::NAMES, layers: glm::layers },
    Family { architecture: "MiniMaxM2ForCausalLM", names: minimax_m2::NAMES, layers: minimax_m2::layers },
    Family {
        architecture: "MiniMaxText01ForCausalLM",
        names: minimax_text::NAMES,
        layers: minimax_text::released,
    },
    Family {
        architecture: "MiniMaxM1ForCausalLM",
        names: minimax_text::NAMES,
        layers: minimax_text::released,
    },
    Family {
        architecture: "MiniMaxForCausalLM",
        names: minimax_text::NAMES,
        layers: minimax_text::transformers,
    },
    Family { architecture: "GptOssForCausalLM", names: gpt_oss::NAMES, layers: gpt_oss::layers },
    Family { architecture: "DeepseekV3ForCausalLM", names: deepseek::NAMES, layers: deepseek::layers_of_3 },
    Family { architecture: "DeepseekV2ForCausalLM", names: deepseek::NAMES, layers: deepseek::layers_of_2 },
    Family { architecture: "PanguUltraMoEForCausalLM", names: pangu::NAMES, layers: pangu::layers },
];

/// The family of the first architecture that is known.
pub fn find(named: &[String], path: &Path) -> Result<&'static Family, LoadError> {
    if let Some(known) = FAMILIES.iter().find(|known| named.iter().any(|name| name == known.architecture)) {
        return Ok(known);
    }
    let name = named.first().cloned().unwrap_or_default();
    let known = FAMILIES.each_ref().map(|family| family.architecture);
    let nearest = nearest(&name, known).unwrap_or_default();
    let name = name.chars().take(100).collect();
    Err(LoadError::UnknownArchitecture { path: path.to_owned(), name, known: known.join(", "), nearest })
}

#[cfg(test)]
mod tests;
