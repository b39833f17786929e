//! config.json and generation_config.json, read into checked numbers. Both generations of keys are understood: older
//! files have `rope_theta`, newer ones `rope_parameters`; the number of experts has two names.

use crate::load_error::LoadError;
use crate::weights::json::read_json;
use serde::Deserialize;
use std::path::Path;
use thiserror::Error;

/// The model families of this build.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// Mixtral 8x7B, 8x22B and their kin.
    Mixtral,
}

/// The architectures of this build, as config.json spells them, and whose they are.
const FAMILIES: [(&str, Family); 1] = [("MixtralForCausalLM", Family::Mixtral)];

/// What config.json breaks.
#[derive(Clone, Debug, PartialEq, Error)]
pub enum ConfigRule {
    /// A number that every config has is not there.
    #[error("{key} is missing")]
    Missing {
        /// Its key.
        key: &'static str,
    },
    /// A number is absurd.
    #[error("{key} is {value}; it must be from 1 to {limit}")]
    OutOfRange {
        /// Its key.
        key: &'static str,
        /// What the file says.
        value: u64,
        /// The most that any model may have.
        limit: u64,
    },
    /// A float is absurd.
    #[error("{key} is {value}; it must be {expected}")]
    Float {
        /// Its key.
        key: &'static str,
        /// What the file says.
        value: f64,
        /// What it may be.
        expected: &'static str,
    },
    /// One number must divide another and does not.
    #[error("{divided_key} ({divided}) is not a multiple of {by_key} ({by})")]
    NotDivisible {
        /// Key of the larger.
        divided_key: &'static str,
        /// The larger.
        divided: usize,
        /// Key of the smaller.
        by_key: &'static str,
        /// The smaller.
        by: usize,
    },
    /// A token uses more experts than there are.
    #[error("num_experts_per_tok ({per_token}) is more than num_local_experts ({experts})")]
    ExpertsPerToken {
        /// Experts a token uses.
        per_token: usize,
        /// Experts there are.
        experts: usize,
    },
    /// The rotary embedding turns pairs.
    #[error("head_dim is {head_dim}; it must be even")]
    OddHead {
        /// What the file says.
        head_dim: usize,
    },
    /// A kind of computation that this build does not do.
    #[error("{key} is {value:?}, which this build does not do; it does {known}")]
    Unsupported {
        /// Its key.
        key: &'static str,
        /// What the file says.
        value: String,
        /// What would do.
        known: &'static str,
    },
    /// An end-of-sequence token that the model does not have.
    #[error("eos_token_id {token} is outside the vocabulary of {vocabulary} tokens")]
    StopToken {
        /// The id.
        token: u32,
        /// Ids below this exist.
        vocabulary: usize,
    },
}

/// A model's shape: every number checked, products of any two of them far from overflow.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// Which code computes it.
    pub family: Family,
    /// Its class name in config.json.
    pub architecture: &'static str,
    /// Token ids below this exist.
    pub vocabulary: usize,
    /// Width of the residual stream.
    pub hidden: usize,
    /// Width of one expert.
    pub intermediate: usize,
    /// Decoder layers.
    pub layers: usize,
    /// Query heads.
    pub heads: usize,
    /// Key and value heads.
    pub kv_heads: usize,
    /// Width of one head.
    pub head_dim: usize,
    /// Experts of one layer.
    pub experts: usize,
    /// Experts that one token uses.
    pub experts_per_token: usize,
    /// Longest context that the model was made for.
    pub context_length: usize,
    /// How far back a token attends, if not everywhere.
    pub sliding_window: Option<usize>,
    /// Added to the mean square in a norm.
    pub rms_norm_eps: f32,
    /// Base of the rotary embedding.
    pub rope_theta: f64,
    /// The output matrix is the embedding.
    pub tied_embeddings: bool,
    /// Tokens that end an answer.
    pub stop_tokens: Vec<u32>,
}

/// What is read of config.json. Numbers are u64 so that a negative or fractional one is the parser's error.
#[derive(Deserialize)]
struct Written {
    #[serde(default)]
    architectures: Vec<String>,
    vocab_size: Option<u64>,
    hidden_size: Option<u64>,
    intermediate_size: Option<u64>,
    num_hidden_layers: Option<u64>,
    num_attention_heads: Option<u64>,
    num_key_value_heads: Option<u64>,
    head_dim: Option<u64>,
    num_local_experts: Option<u64>,
    num_experts: Option<u64>,
    num_experts_per_tok: Option<u64>,
    max_position_embeddings: Option<u64>,
    sliding_window: Option<u64>,
    rms_norm_eps: Option<f64>,
    rope_theta: Option<f64>,
    rope_parameters: Option<RopeParameters>,
    rope_scaling: Option<RopeParameters>,
    hidden_act: Option<String>,
    #[serde(default)]
    tie_word_embeddings: bool,
    #[serde(default)]
    attention_bias: bool,
    eos_token_id: Option<StopTokens>,
}

#[derive(Deserialize)]
struct RopeParameters {
    rope_theta: Option<f64>,
    rope_type: Option<String>,
    /// The older name; some files have both.
    #[serde(rename = "type")]
    old_type: Option<String>,
}

impl RopeParameters {
    fn kind(&self) -> Option<&str> {
        self.rope_type.as_deref().or(self.old_type.as_deref())
    }
}

#[derive(Deserialize)]
#[serde(untagged, expecting = "eos_token_id is neither a token id nor a list of them")]
enum StopTokens {
    One(u32),
    Many(Vec<u32>),
}

#[derive(Deserialize)]
struct GenerationConfig {
    eos_token_id: Option<StopTokens>,
}

impl StopTokens {
    fn into_vec(self) -> Vec<u32> {
        match self {
            StopTokens::One(token) => vec![token],
            StopTokens::Many(tokens) => tokens,
        }
    }
}

impl Config {
    /// Reads `dir/config.json` and, where there is one, `dir/generation_config.json`.
    pub fn read(dir: &Path) -> Result<Config, LoadError> {
        check_folder(dir).map_err(|source| LoadError::Folder { path: dir.to_owned(), source })?;
        let path = dir.join("config.json");
        let mut written: Written = read_json(&path)?;
        let named = architecture(&written.architectures, &path)?;
        let own_stop_tokens = written.eos_token_id.take();
        let mut config =
            check(written, named).map_err(|rule| LoadError::Config { path: path.clone(), rule })?;

        let generation = dir.join("generation_config.json");
        let theirs = match generation.exists() {
            true => read_json::<GenerationConfig>(&generation)?.eos_token_id,
            false => None,
        };
        let from = if theirs.is_some() { generation } else { path };
        config.stop_tokens = theirs.or(own_stop_tokens).map_or(Vec::new(), StopTokens::into_vec);
        if let Some(&token) = config.stop_tokens.iter().find(|&&t| t as usize >= config.vocabulary) {
            let rule = ConfigRule::StopToken { token, vocabulary: config.vocabulary };
            return Err(LoadError::Config { path: from, rule });
        }
        Ok(config)
    }

    /// The longest context that can be served exactly: a window that reaches everywhere makes no difference.
    pub fn servable_context(&self) -> usize {
        self.sliding_window.map_or(self.context_length, |window| window.min(self.context_length))
    }
}

fn architecture(named: &[String], path: &Path) -> Result<(&'static str, Family), LoadError> {
    if let Some(known) = FAMILIES.into_iter().find(|(known, _)| named.iter().any(|name| name == known)) {
        return Ok(known);
    }
    let name = named.first().cloned().unwrap_or_default();
    let known = FAMILIES.map(|(known, _)| known);
    let nearest = known.into_iter().min_by_key(|known| edit_distance(known, &name)).unwrap_or_default();
    let name = name.chars().take(100).collect();
    Err(LoadError::UnknownArchitecture { path: path.to_owned(), name, known: known.join(", "), nearest })
}

/// Levenshtein's distance over the first hundred characters.
fn edit_distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().take(100).collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], i + 1);
        for (j, y) in b.iter().enumerate() {
            let above = row[j + 1];
            row[j + 1] = (diagonal + usize::from(x != *y)).min(above + 1).min(row[j] + 1);
            diagonal = above;
        }
    }
    row[b.len()]
}

/// From 1 to `limit`.
fn number(key: &'static str, value: Option<u64>, limit: u64) -> Result<usize, ConfigRule> {
    match value {
        None => Err(ConfigRule::Missing { key }),
        Some(value) if (1..=limit).contains(&value) => Ok(value as usize),
        Some(value) => Err(ConfigRule::OutOfRange { key, value, limit }),
    }
}

fn divides(
    (divided_key, divided): (&'static str, usize),
    (by_key, by): (&'static str, usize),
) -> Result<usize, ConfigRule> {
    match divided % by {
        0 => Ok(divided / by),
        _ => Err(ConfigRule::NotDivisible { divided_key, divided, by_key, by }),
    }
}

fn check(written: Written, (architecture, family): (&'static str, Family)) -> Result<Config, ConfigRule> {
    let vocabulary = number("vocab_size", written.vocab_size, 1 << 24)?;
    let hidden = number("hidden_size", written.hidden_size, 1 << 18)?;
    let intermediate = number("intermediate_size", written.intermediate_size, 1 << 20)?;
    let layers = number("num_hidden_layers", written.num_hidden_layers, 1 << 12)?;
    let heads = number("num_attention_heads", written.num_attention_heads, 1 << 12)?;
    let kv_heads =
        written.num_key_value_heads.map_or(Ok(heads), |n| number("num_key_value_heads", Some(n), 1 << 12))?;
    divides(("num_attention_heads", heads), ("num_key_value_heads", kv_heads))?;
    let head_dim = match written.head_dim {
        Some(n) => number("head_dim", Some(n), 1 << 12)?,
        None => divides(("hidden_size", hidden), ("num_attention_heads", heads))?,
    };
    if !head_dim.is_multiple_of(2) {
        return Err(ConfigRule::OddHead { head_dim });
    }
    let experts = number("num_local_experts", written.num_local_experts.or(written.num_experts), 1 << 14)?;
    let experts_per_token = number("num_experts_per_tok", written.num_experts_per_tok, 1 << 14)?;
    if experts_per_token > experts {
        return Err(ConfigRule::ExpertsPerToken { per_token: experts_per_token, experts });
    }
    let context_length = number("max_position_embeddings", written.max_position_embeddings, 1 << 24)?;
    let sliding_window =
        written.sliding_window.map(|n| number("sliding_window", Some(n), u64::MAX)).transpose()?;
    let rms_norm_eps = written.rms_norm_eps.unwrap_or(1e-5);
    if !(0.0..1.0).contains(&rms_norm_eps) {
        return Err(ConfigRule::Float {
            key: "rms_norm_eps",
            value: rms_norm_eps,
            expected: "from 0 to less than 1",
        });
    }
    if written.attention_bias {
        return Err(unsupported("attention_bias", "true", "false"));
    }
    if let Some(other) = written.hidden_act.filter(|name| name != "silu") {
        return Err(unsupported("hidden_act", &other, "silu"));
    }
    Ok(Config {
        family,
        architecture,
        vocabulary,
        hidden,
        intermediate,
        layers,
        heads,
        kv_heads,
        head_dim,
        experts,
        experts_per_token,
        context_length,
        sliding_window,
        rms_norm_eps: rms_norm_eps as f32,
        rope_theta: rope_theta(written.rope_theta, written.rope_parameters, written.rope_scaling)?,
        tied_embeddings: written.tie_word_embeddings,
        stop_tokens: Vec::new(),
    })
}

fn unsupported(key: &'static str, value: &str, known: &'static str) -> ConfigRule {
    ConfigRule::Unsupported { key, value: value.chars().take(100).collect(), known }
}

/// A file in place of the folder is whoever named it to mend, not the machine's failure to read.
fn check_folder(dir: &Path) -> std::io::Result<()> {
    match std::fs::metadata(dir)?.is_dir() {
        true => Ok(()),
        false => Err(std::io::ErrorKind::NotADirectory.into()),
    }
}

/// `rope_theta` of old, or within `rope_parameters`; a scaled rotary embedding is another computation.
fn rope_theta(
    old: Option<f64>,
    parameters: Option<RopeParameters>,
    scaling: Option<RopeParameters>,
) -> Result<f64, ConfigRule> {
    for kind in [&parameters, &scaling].into_iter().flatten().filter_map(RopeParameters::kind) {
        if kind != "default" {
            return Err(unsupported("rope_type", kind, "default"));
        }
    }
    let theta = parameters.and_then(|p| p.rope_theta).or(old).unwrap_or(1e6);
    if theta.is_finite() && theta > 0.0 {
        return Ok(theta);
    }
    Err(ConfigRule::Float { key: "rope_theta", value: theta, expected: "a positive number" })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;

    const OLD: &str = r#"{"architectures": ["MixtralForCausalLM"], "vocab_size": 64, "hidden_size": 32,
        "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2,
        "num_local_experts": 4, "num_experts_per_tok": 2, "max_position_embeddings": 128, "rms_norm_eps": 1e-6,
        "rope_theta": 5000.0, "sliding_window": null, "torch_dtype": "bfloat16", "hidden_act": "silu",
        "eos_token_id": 2}"#;

    /// The good config with some keys replaced.
    fn read(changes: &[(&str, Value)]) -> Result<Config, LoadError> {
        let dir = tempfile::tempdir().unwrap();
        let mut json: serde_json::Map<String, Value> = serde_json::from_str(OLD).unwrap();
        for (key, value) in changes {
            json.insert((*key).to_owned(), value.clone());
        }
        std::fs::write(dir.path().join("config.json"), serde_json::to_vec(&json).unwrap()).unwrap();
        Config::read(dir.path())
    }

    fn rule(changes: &[(&str, Value)]) -> ConfigRule {
        match read(changes) {
            Err(LoadError::Config { rule, .. }) => rule,
            other => panic!("expected a broken rule, got {other:?}"),
        }
    }

    #[test]
    fn no_folder_and_a_file_in_its_place_are_named_as_such() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("model.gguf");
        std::fs::write(&file, "x").unwrap();
        for path in [file, dir.path().join("absent")] {
            assert!(matches!(Config::read(&path), Err(LoadError::Folder { .. })), "{}", path.display());
        }
    }

    #[test]
    fn the_old_generation_is_read() {
        let config = read(&[]).unwrap();
        assert_eq!((config.head_dim, config.experts, config.experts_per_token), (8, 4, 2));
        assert_eq!((config.rope_theta, config.sliding_window), (5000.0, None));
        assert_eq!(config.stop_tokens, [2]);
        assert!(!config.tied_embeddings);
    }

    #[test]
    fn the_new_generation_is_read() {
        let config = read(&[
            ("rope_theta", Value::Null),
            ("rope_parameters", serde_json::json!({"rope_theta": 7.5, "rope_type": "default"})),
            ("num_local_experts", Value::Null),
            ("num_experts", 8.into()),
            ("head_dim", 10.into()),
            ("tie_word_embeddings", true.into()),
            ("eos_token_id", serde_json::json!([3, 5])),
        ])
        .unwrap();
        assert_eq!((config.rope_theta, config.experts, config.head_dim), (7.5, 8, 10));
        assert_eq!(config.stop_tokens, [3, 5]);
        assert!(config.tied_embeddings);
    }

    #[test]
    fn absurd_numbers_are_refused() {
        assert_eq!(
            rule(&[("num_hidden_layers", 1_000_000_000_000u64.into())]),
            ConfigRule::OutOfRange { key: "num_hidden_layers", value: 1_000_000_000_000, limit: 4096 }
        );
        assert!(matches!(rule(&[("num_attention_heads", 0.into())]), ConfigRule::OutOfRange { .. }));
        assert!(matches!(rule(&[("vocab_size", Value::Null)]), ConfigRule::Missing { key: "vocab_size" }));
        assert!(matches!(rule(&[("num_attention_heads", 3.into())]), ConfigRule::NotDivisible { .. }));
        assert!(matches!(rule(&[("num_key_value_heads", 3.into())]), ConfigRule::NotDivisible { .. }));
        assert_eq!(
            rule(&[("num_experts_per_tok", 5.into())]),
            ConfigRule::ExpertsPerToken { per_token: 5, experts: 4 }
        );
        assert_eq!(rule(&[("head_dim", 7.into())]), ConfigRule::OddHead { head_dim: 7 });
        assert!(matches!(rule(&[("rms_norm_eps", 2.into())]), ConfigRule::Float { .. }));
        assert!(matches!(rule(&[("rope_theta", 0.into())]), ConfigRule::Float { .. }));
        assert!(matches!(rule(&[("hidden_act", "gelu".into())]), ConfigRule::Unsupported { .. }));
        assert!(matches!(rule(&[("eos_token_id", 64.into())]), ConfigRule::StopToken { token: 64, .. }));
        let scaled = serde_json::json!({"type": "yarn", "rope_type": "yarn", "factor": 4.0});
        assert!(matches!(rule(&[("rope_scaling", scaled)]), ConfigRule::Unsupported { .. }));
    }

    #[test]
    fn a_number_of_the_wrong_kind_is_the_parsers_error() {
        for value in [Value::from(-1), Value::from(1.5), Value::from("64")] {
            assert!(matches!(read(&[("vocab_size", value)]), Err(LoadError::Json { .. })));
        }
    }

    #[test]
    fn the_parsers_errors_say_where() {
        let text = read(&[("eos_token_id", "end".into())]).unwrap_err().to_string();
        assert!(text.contains("neither a token id nor a list"), "{text}");
        let text = read(&[("vocab_size", "many".into())]).unwrap_err().to_string();
        assert!(text.contains("config.json") && text.contains("line 1 column"), "{text}");
    }

    #[test]
    fn an_unknown_architecture_is_told_the_nearest() {
        let error = read(&[("architectures", serde_json::json!(["MistralForCausalLM"]))]).unwrap_err();
        let text = error.to_string();
        assert!(
            text.contains("MistralForCausalLM") && text.contains("nearest: MixtralForCausalLM"),
            "{text}"
        );
        assert_eq!(edit_distance("kitten", "sitting"), 3);
    }

    #[test]
    fn a_window_shortens_what_can_be_served() {
        assert_eq!(read(&[("sliding_window", 50.into())]).unwrap().servable_context(), 50);
        assert_eq!(read(&[("sliding_window", 500.into())]).unwrap().servable_context(), 128);
    }
}
