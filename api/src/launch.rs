//! What the operator tells a rank when it starts it, and what the process tells back when it ends.
//!
//! A rank is told everything on its command line ([`RankLaunch::args`]). A process that cannot do its work writes a
//! [`Termination`] to its container's termination message; `coterie inspect` writes an [`Inspection`] there.

use serde::{Deserialize, Serialize};
use std::fmt;

/// Kubernetes cuts a termination message at this many bytes.
pub const TERMINATION_MESSAGE_LIMIT: usize = 4096;
/// Where Kubernetes reads the termination message from; written only if the file is already there.
pub const TERMINATION_LOG: &str = "/dev/termination-log";

/// How the weights are held in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "crd", derive(schemars::JsonSchema))]
pub enum Quantization {
    /// As in the checkpoint (bf16).
    None,
    /// 8-bit integers with one float scale per group of inputs; made while loading.
    Int8,
    /// 4-bit integers with one float scale per 32 inputs; made while loading, on GPUs only.
    Int4,
}

impl Quantization {
    /// Best quality first: the order in which the operator tries what fits.
    pub const BEST_FIRST: [Quantization; 3] = [Quantization::None, Quantization::Int8, Quantization::Int4];

    /// Those of them that `device` computes with.
    pub fn best_first_on(device: Device) -> &'static [Quantization] {
        match device {
            Device::Cpu => &Self::BEST_FIRST[..2],
            Device::Gpu => &Self::BEST_FIRST,
        }
    }

    /// Does `device` compute with weights that are held so?
    pub fn runs_on(self, device: Device) -> bool {
        Self::best_first_on(device).contains(&self)
    }

    /// As written on the command line of `coterie serve --quantization`.
    pub fn flag(self) -> &'static str {
        match self {
            Quantization::None => "none",
            Quantization::Int8 => "int8",
            Quantization::Int4 => "int4",
        }
    }
}

impl fmt::Display for Quantization {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

impl std::str::FromStr for Quantization {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Self::BEST_FIRST
            .into_iter()
            .find(|q| q.flag().eq_ignore_ascii_case(text))
            .ok_or_else(|| format!("unknown quantization {text:?}; known: none, int8, int4"))
    }
}

/// Where the guesses of speculative decoding come from. They change how fast an answer comes, never the answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "crd", derive(schemars::JsonSchema))]
pub enum Speculate {
    /// Nothing is guessed.
    None,
    /// What followed the same tokens when they were in the text before.
    Lookup,
    /// The checkpoint's draft module (multi-token prediction): one token a step.
    Mtp,
}

impl Speculate {
    const ALL: [Speculate; 3] = [Speculate::None, Speculate::Lookup, Speculate::Mtp];

    /// As written on the command line of `coterie serve --speculate`.
    pub fn flag(self) -> &'static str {
        match self {
            Speculate::None => "none",
            Speculate::Lookup => "lookup",
            Speculate::Mtp => "mtp",
        }
    }
}

impl std::str::FromStr for Speculate {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let found = Self::ALL.into_iter().find(|source| source.flag().eq_ignore_ascii_case(text));
        let known = Self::ALL.map(Speculate::flag).join(", ");
        found.ok_or_else(|| format!("unknown source of guesses {text:?}; known: {known}"))
    }
}

/// What a rank computes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "crd", derive(schemars::JsonSchema))]
pub enum Device {
    /// The pod's CPU cores.
    Cpu,
    /// The pod's NVIDIA GPUs.
    Gpu,
}

impl Device {
    /// As written on the command line of `coterie serve --device`.
    pub fn flag(self) -> &'static str {
        match self {
            Device::Cpu => "cpu",
            Device::Gpu => "gpu",
        }
    }
}

/// How activations travel to experts on other ranks. Experts on the same rank are given the same values, so where an
/// expert is never shows in an answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "crd", derive(schemars::JsonSchema))]
pub enum Activations {
    /// bf16 there and back.
    #[default]
    Bf16,
    /// 8-bit integers with one scale a token there, bf16 back.
    Int8,
}

impl Activations {
    /// As written on the command line of `coterie serve --activations`.
    pub fn flag(self) -> &'static str {
        match self {
            Activations::Bf16 => "bf16",
            Activations::Int8 => "int8",
        }
    }
}

impl std::str::FromStr for Activations {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        [Activations::Bf16, Activations::Int8]
            .into_iter()
            .find(|a| a.flag().eq_ignore_ascii_case(text))
            .ok_or_else(|| format!("unknown activations {text:?}; known: bf16, int8"))
    }
}

/// What a rank is told when its replica has several.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExpertsLaunch {
    /// Its number in the replica.
    pub rank: u16,
    /// File with the [`ExpertMap`](crate::expert_map::ExpertMap), JSON; read again when it changes.
    pub expert_map: String,
    /// File with the [`Peers`](crate::peers::Peers), JSON; read again when it changes.
    pub peers: String,
    /// TCP port on which other ranks reach its experts.
    pub exchange_port: u16,
    /// Folder with `ca.crt`, `tls.crt` and `tls.key`, PEM, by which ranks prove themselves to each other; read again
    /// when they change. Without it the exchange is neither encrypted nor protected.
    pub exchange_tls: Option<String>,
    /// How activations travel.
    pub activations: Activations,
    /// Experts, all layers together, that it may take over from lost ranks: what its memory has room for. Any number,
    /// when absent.
    pub adopt_limit: Option<u32>,
}

/// The command line of one rank.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RankLaunch {
    /// Folder of the model inside the container.
    pub model_dir: String,
    /// Name that clients put into `model`.
    pub served_name: String,
    /// Longest request in tokens (prompt and answer); the model's own when absent.
    pub context_length: Option<u32>,
    /// How the weights are held.
    pub quantization: Quantization,
    /// Where guesses come from; the runtime's choice when absent.
    pub speculate: Option<Speculate>,
    /// How long a token may take after the one before it, milliseconds; where absent, others' prompts are computed in chunks
    /// of one size.
    pub itl_milliseconds: Option<u32>,
    /// What to compute on.
    pub device: Device,
    /// HTTP port.
    pub port: u16,
    /// After SIGTERM, running requests may take this many seconds to finish.
    pub drain_seconds: u32,
    /// Its part of a replica of several ranks; absent when it is the only one.
    pub experts: Option<ExpertsLaunch>,
}

impl RankLaunch {
    /// The arguments after the program's name: `serve --model … --port …`.
    pub fn args(&self) -> Vec<String> {
        let mut args = vec!["serve".to_owned()];
        let mut flag = |name: &str, value: String| args.extend([format!("--{name}"), value]);
        flag("model", self.model_dir.clone());
        flag("served-name", self.served_name.clone());
        if let Some(context) = self.context_length {
            flag("context", context.to_string());
        }
        flag("quantization", self.quantization.flag().to_owned());
        if let Some(source) = self.speculate {
            flag("speculate", source.flag().to_owned());
        }
        if let Some(time) = self.itl_milliseconds {
            flag("itl-milliseconds", time.to_string());
        }
        flag("device", self.device.flag().to_owned());
        flag("port", self.port.to_string());
        flag("drain-seconds", self.drain_seconds.to_string());
        if let Some(experts) = &self.experts {
            flag("rank", experts.rank.to_string());
            flag("expert-map", experts.expert_map.clone());
            flag("peers", experts.peers.clone());
            flag("exchange-port", experts.exchange_port.to_string());
            if let Some(tls) = &experts.exchange_tls {
                flag("exchange-tls", tls.clone());
            }
            flag("activations", experts.activations.flag().to_owned());
            if let Some(limit) = experts.adopt_limit {
                flag("adopt-limit", limit.to_string());
            }
        }
        args
    }
}

/// Bytes of one replica's weights in memory, by how they are held.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "crd", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct WeightBytes {
    /// As in the checkpoint.
    pub none: u64,
    /// With [`Quantization::Int8`].
    pub int8: u64,
    /// With [`Quantization::Int4`]. Absent in what an older runtime found, which cannot hold them so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub int4: Option<u64>,
}

impl WeightBytes {
    /// Bytes when held as `quantization`; for a runtime that does not know it, those of int8, which are more.
    pub fn of(&self, quantization: Quantization) -> u64 {
        match quantization {
            Quantization::None => self.none,
            Quantization::Int8 => self.int8,
            Quantization::Int4 => self.int4.unwrap_or(self.int8),
        }
    }

    /// How `device` can hold them, best first, as far as the runtime that counted them knows.
    pub fn best_first_on(&self, device: Device) -> Vec<Quantization> {
        let known =
            |quantization: &&Quantization| **quantization != Quantization::Int4 || self.int4.is_some();
        Quantization::best_first_on(device).iter().filter(known).copied().collect()
    }

    /// Both together, as much as can be counted; without int4 if one is.
    pub fn and(self, other: WeightBytes) -> WeightBytes {
        WeightBytes {
            none: self.none.saturating_add(other.none),
            int8: self.int8.saturating_add(other.int8),
            int4: self.int4.zip(other.int4).map(|(a, b)| a.saturating_add(b)),
        }
    }
}

/// What `coterie inspect` found in a model folder: everything that the capacity plan needs, in one JSON object that
/// fits a termination message.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "crd", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct Inspection {
    /// Class name from config.json, e.g. `MixtralForCausalLM`.
    pub architecture: String,
    /// Parameters of the whole model.
    pub parameters: u64,
    /// Parameters that one token uses.
    pub active_parameters: u64,
    /// Decoder layers.
    pub layers: u32,
    /// Those of them that have experts; the others are dense. Absent in what an older runtime found: all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expert_layers: Option<u32>,
    /// Experts of one layer.
    pub experts: u32,
    /// Experts that one token uses in one layer.
    pub experts_per_token: u32,
    /// Longest context that the model was made for, tokens.
    pub context_length: u32,
    /// Weights in memory, bytes.
    pub weight_bytes: WeightBytes,
    /// Those of them that are experts, which the ranks of a replica share; every rank has the others. Absent in what
    /// an older runtime found.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expert_bytes: Option<WeightBytes>,
    /// KV cache, bytes per token of context.
    pub kv_bytes_per_token: u64,
    /// State of one request that does not grow with its length (linear attention, windows), bytes.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub state_bytes: u64,
    /// Memory beside weights and KV cache (activations, tokenizer, the process itself), bytes.
    pub working_bytes: u64,
    /// Of the working memory, bytes: KV cache, states and snapshots for requests beside the longest. GPUs of one rank
    /// share it; of the rest each has its own. Absent in what an older runtime found: 0.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub spare_bytes: u64,
    /// What its draft module takes beside all that, if it has one that the runtime knows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub draft_module: Option<DraftModule>,
    /// `sha256:…` over the folder's files: names, sizes, and contents as documented by `coterie inspect --help`.
    pub digest: String,
    /// Devices that this build of the runtime can serve the model on.
    pub devices: Vec<Device>,
    /// GPUs that one rank of this build can compute on at most. Absent in what an older runtime found: 1.
    #[serde(default = "one", skip_serializing_if = "is_one")]
    pub most_gpus: u32,
}

/// What a draft module takes; every rank has all of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "crd", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct DraftModule {
    /// Weights in memory, bytes.
    pub weight_bytes: WeightBytes,
    /// KV cache, bytes per token of context.
    pub kv_bytes_per_token: u64,
    /// KV cache for requests beside the longest, bytes.
    pub spare_bytes: u64,
}

impl Inspection {
    /// The same with the draft module loaded; as it is, without one.
    pub fn with_draft_module(mut self) -> Inspection {
        if let Some(draft) = self.draft_module {
            self.weight_bytes = self.weight_bytes.and(draft.weight_bytes);
            self.kv_bytes_per_token = self.kv_bytes_per_token.saturating_add(draft.kv_bytes_per_token);
            self.working_bytes = self.working_bytes.saturating_add(draft.spare_bytes);
            self.spare_bytes = self.spare_bytes.saturating_add(draft.spare_bytes);
        }
        self
    }

    /// Which layers have experts, and how many: `each with 8 experts, 2 a token`.
    pub fn mixture(&self) -> String {
        let layers = match self.expert_layers.filter(|layers| *layers != self.layers) {
            None => "each".to_owned(),
            Some(layers) => format!("{layers} of them"),
        };
        format!("{layers} with {} experts, {} a token", self.experts, self.experts_per_token)
    }
}

fn one() -> u32 {
    1
}

fn is_one(number: &u32) -> bool {
    *number == 1
}

fn is_zero(bytes: &u64) -> bool {
    *bytes == 0
}

/// Why a runtime process ended without doing its work.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum TerminationReason {
    /// The model folder is unusable as it is: unknown architecture, broken or missing file.
    ModelRejected,
    /// The command line asks for what this build or machine cannot do.
    LaunchRejected,
    /// The device cannot be used as it is: no driver or one that is too old, memory that others have.
    DeviceUnusable,
    /// The machine failed us: out of memory, port taken, read error.
    Failed,
}

/// The termination message of a runtime process that failed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Termination {
    /// Who has to act.
    pub reason: TerminationReason,
    /// One sentence for a person: what happened, to which file, what to do.
    pub message: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn args_leave_out_an_absent_context() {
        let launch = RankLaunch {
            model_dir: "/model".into(),
            served_name: "m".into(),
            context_length: None,
            quantization: Quantization::Int8,
            speculate: None,
            itl_milliseconds: None,
            device: Device::Cpu,
            port: 8080,
            drain_seconds: 60,
            experts: None,
        };
        assert_eq!(
            launch.args().join(" "),
            "serve --model /model --served-name m --quantization int8 --device cpu --port 8080 --drain-seconds 60"
        );
        let guessing = RankLaunch { speculate: Some(Speculate::Mtp), ..launch.clone() };
        assert!(guessing.args().join(" ").contains(" --speculate mtp "));
        let with = RankLaunch { context_length: Some(512), ..launch.clone() };
        assert!(with.args().join(" ").contains(" --context 512 "));
        let experts = ExpertsLaunch {
            rank: 1,
            expert_map: "/e/map.json".into(),
            peers: "/e/peers.json".into(),
            exchange_port: 8081,
            exchange_tls: Some("/tls".into()),
            activations: Activations::Bf16,
            adopt_limit: Some(0),
        };
        let several = RankLaunch { experts: Some(experts), ..launch };
        assert!(several.args().join(" ").ends_with(
            "--rank 1 --expert-map /e/map.json --peers /e/peers.json --exchange-port 8081 --exchange-tls /tls \
             --activations bf16 --adopt-limit 0"
        ));
    }

    #[test]
    fn what_an_older_runtime_found_is_still_read_and_written_alike() {
        let older = r#"{"architecture":"A","parameters":9,"activeParameters":3,"layers":1,"experts":8,"expertsPerToken":2,"contextLength":64,"weightBytes":{"none":18,"int8":10},"kvBytesPerToken":4,"workingBytes":5,"digest":"sha256:0","devices":["Cpu"]}"#;
        let read: Inspection = serde_json::from_str(older).unwrap();
        assert_eq!((read.expert_bytes, read.state_bytes), (None, 0));
        assert_eq!(serde_json::to_string(&read).unwrap(), older);
    }

    #[test]
    fn quantization_is_read_in_both_spellings() {
        assert_eq!("int8".parse(), Ok(Quantization::Int8));
        assert_eq!("Int8".parse(), Ok(Quantization::Int8));
        assert_eq!("None".parse(), Ok(Quantization::None));
        assert!("int9".parse::<Quantization>().unwrap_err().contains("known: none, int8, int4"));
    }
}
