//! Why a model folder, or what was asked of it, was refused: one variant a rule.

use crate::model::config::ConfigRule;
use crate::weights::safetensors::HeaderRule;
use coterie_api::launch::{Quantization, TerminationReason};
use coterie_kernels::cuda::device::DeviceError;
use coterie_kernels::cuda::driver::OpenError;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use thiserror::Error;

/// Too many symbolic links (Linux); there is no ErrorKind for it yet.
const ELOOP: i32 = 40;

/// Why a model could not be loaded. Every message names the file, and the tensor where there is one.
#[derive(Debug, Error)]
pub enum LoadError {
    /// The folder is not there, or is no folder.
    #[error("the model folder {} cannot be read: {source}; mount or download the model there", path.display())]
    Folder {
        /// The folder.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A file that every model folder has is not there.
    #[error("{} is missing; the folder must hold a whole HuggingFace model", path.display())]
    MissingFile {
        /// The file.
        path: PathBuf,
    },
    /// In a file's place is a pipe, a device, a folder, or a link that leads to itself.
    #[error("{} is not a regular file; replace it by the model's own", path.display())]
    NotAFile {
        /// What is there.
        path: PathBuf,
    },
    /// The system failed to read a file.
    #[error("{} cannot be read: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The system failed to write a file.
    #[error("{} cannot be written: {source}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A JSON file is larger than any real one.
    #[error("{} has {bytes} bytes, more than the {limit} that such a file may have", path.display())]
    FileTooLarge {
        /// The file.
        path: PathBuf,
        /// Its size.
        bytes: u64,
        /// The most that is read.
        limit: u64,
    },
    /// A JSON file is not JSON, or not of the expected form.
    #[error("{} is not what it should be: {message}", path.display())]
    Json {
        /// The file.
        path: PathBuf,
        /// What the parser said.
        message: String,
    },
    /// config.json names no architecture that we know.
    #[error(
        "{}: architecture {name:?} is not known to this build; known: {known}; nearest: {nearest}",
        path.display()
    )]
    UnknownArchitecture {
        /// config.json.
        path: PathBuf,
        /// What it names.
        name: String,
        /// What this build serves.
        known: String,
        /// The known name most like it.
        nearest: &'static str,
    },
    /// config.json breaks a rule.
    #[error("{}: {rule}", path.display())]
    Config {
        /// config.json or generation_config.json.
        path: PathBuf,
        /// The rule.
        rule: ConfigRule,
    },
    /// A safetensors file breaks a rule of its format.
    #[error("{}: {rule}", path.display())]
    Header {
        /// The safetensors file.
        path: PathBuf,
        /// The rule.
        rule: Box<HeaderRule>,
    },
    /// The index names a shard outside the folder.
    #[error("{}: shard {shard:?} of tensor {tensor:?} is not a plain file name; shards lie beside their index", path.display())]
    ShardOutside {
        /// The index.
        path: PathBuf,
        /// The name it gives.
        shard: String,
        /// A tensor that is said to be there.
        tensor: String,
    },
    /// The index names a shard that is not there.
    #[error("{}: shard {shard:?} of tensor {tensor:?} is missing; download it again", path.display())]
    ShardMissing {
        /// The index.
        path: PathBuf,
        /// The name it gives.
        shard: String,
        /// A tensor that is said to be there.
        tensor: String,
    },
    /// The index lists a tensor twice.
    #[error("{}: tensor {tensor:?} is listed twice", path.display())]
    ListedTwice {
        /// The index.
        path: PathBuf,
        /// The tensor.
        tensor: String,
    },
    /// The index names a tensor that its shard does not have.
    #[error("{}: the index says that tensor {tensor:?} is here, but it is not; download the model again", path.display())]
    NotInShard {
        /// The shard.
        path: PathBuf,
        /// The tensor.
        tensor: String,
    },
    /// The architecture needs a tensor that no file has.
    #[error("{}: tensor {tensor:?} is missing; the checkpoint is incomplete or of another architecture", path.display())]
    MissingTensor {
        /// The file, or the index, that should name it.
        path: PathBuf,
        /// The tensor.
        tensor: String,
    },
    /// A tensor's shape is not what config.json says.
    #[error("{}: tensor {tensor:?} has shape {found:?}, but config.json calls for {expected:?}", path.display())]
    WrongShape {
        /// The file.
        path: PathBuf,
        /// The tensor.
        tensor: String,
        /// From config.json.
        expected: Vec<usize>,
        /// From the file.
        found: Vec<usize>,
    },
    /// A tensor's number format cannot be used.
    #[error("{}: tensor {tensor:?} holds {found}, but it must be {expected}", path.display())]
    WrongDtype {
        /// The file.
        path: PathBuf,
        /// The tensor.
        tensor: String,
        /// Its format, as the file spells it.
        found: String,
        /// What it may be.
        expected: &'static str,
    },
    /// A matrix is in fp8, but of which size its blocks are nobody says.
    #[error(
        "{}: tensor {tensor:?} holds F8_E4M3, but config.json has no quantization_config.weight_block_size, by which its scales are found; other forms of fp8 are not read",
        path.display()
    )]
    NoFp8Blocks {
        /// The file.
        path: PathBuf,
        /// The tensor.
        tensor: String,
    },
    /// A longer context was asked for than the model has.
    #[error(
        "a context of {asked} tokens was asked for, but this model was made for {limit}; ask for at most that"
    )]
    ContextTooLong {
        /// Asked for.
        asked: usize,
        /// What the model was made for.
        limit: usize,
    },
    /// An option is 0 that must not be.
    #[error("{option} is 0; it must be at least 1")]
    ZeroOption {
        /// Its name.
        option: &'static str,
    },
    /// One request of the whole context must fit.
    #[error(
        "a cache of {asked} tokens cannot hold one request of {context}; ask for a larger one or a shorter context"
    )]
    CacheTooSmall {
        /// Tokens of cache asked for.
        asked: usize,
        /// Longest request, tokens.
        context: usize,
    },
    /// So much cache cannot even be counted.
    #[error(
        "a cache of {blocks} blocks is more than can be addressed; ask for a smaller cache or a shorter context"
    )]
    CacheTooLarge {
        /// Blocks of cache.
        blocks: usize,
    },
    /// A number of running states that no machine has memory for.
    #[error(
        "the states of {slots} running requests and {snapshots} snapshots are more than can be addressed; let fewer requests run"
    )]
    StatesTooLarge {
        /// Requests that may run.
        slots: usize,
        /// Snapshots that are kept.
        snapshots: usize,
    },
    /// The system gives no room for the cache.
    #[error(
        "the system gives no {bytes} bytes for one layer's cache: {source}; ask for a shorter context or use a larger machine"
    )]
    NoMemory {
        /// Bytes asked for.
        bytes: usize,
        /// What the system said.
        source: std::io::Error,
    },
    /// An expert map of another model.
    #[error(
        "the expert map speaks of {} layers of {} experts, this model has {} layers of {}; write a map for this model",
        found[0], found[1], expected[0], expected[1]
    )]
    ExpertMap {
        /// Layers and experts of the map.
        found: [usize; 2],
        /// Layers with experts and experts of the model.
        expected: [usize; 2],
    },
    /// The way to the other ranks cannot be opened.
    #[error("the exchange with the other ranks cannot be opened: {source}")]
    Exchange {
        /// What the system said.
        source: std::io::Error,
    },
    /// Guesses of a draft module were asked for.
    #[error(
        "the checkpoint has no draft module: there is no tensor {tensor}; use --speculate lookup or none"
    )]
    NoDraftModule {
        /// One of its tensors.
        tensor: String,
    },
    /// A GPU was asked for, and none can be used.
    #[error("no GPU can be used: {}; {}", .0, remedy(.0))]
    NoGpu(#[from] OpenError),
    /// A table of tiles that cannot be used, or cannot be kept.
    #[error(
        "the table of tiles {} cannot be used: {why}; measure it again with `coterie bench --tune`, or remove it", path.display()
    )]
    Tiles {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// A size for which there are no kernels.
    #[error("on GPUs {what} may be at most {limit}, this model has {found}; use --device cpu")]
    NoKernel {
        /// Which size.
        what: &'static str,
        /// The model's.
        found: usize,
        /// The largest that kernels take.
        limit: usize,
    },
    /// CPUs have no kernels for weights that are held so.
    #[error("--quantization {} is for GPUs only; use --device gpu, or --quantization int8", quantization.flag())]
    OnlyOnGpus {
        /// What was asked for.
        quantization: Quantization,
    },
    /// The model does not fit into a GPU's memory.
    #[error(
        "{needed} bytes of the GPU's memory are needed (weights {weights}, cache {cache}, the rest for a step), {free} are free; ask for a shorter context, --quantization int8 or int4, or more ranks, or use a larger GPU"
    )]
    NoGpuMemory {
        /// In all.
        needed: usize,
        /// Of them for weights.
        weights: usize,
        /// And for the cache, running states and snapshots.
        cache: usize,
        /// What nobody uses now.
        free: usize,
    },
    /// The GPU did not do what it was asked for.
    #[error("{0}; look at the GPU's state on its node (nvidia-smi), then start again")]
    Gpu(#[from] DeviceError),
}

/// What to do where no GPU can be used.
fn remedy(error: &OpenError) -> &'static str {
    match error {
        OpenError::NoDriver => {
            "give the pod a GPU (nvidia.com/gpu) on a node with NVIDIA's container toolkit, or use --device cpu"
        }
        OpenError::OldDriver { .. } => "update the driver of the node, or use --device cpu",
        OpenError::NoDevice => "give the pod a GPU (nvidia.com/gpu), or use --device cpu",
        OpenError::NoKernels { .. } => "use a node with another GPU, or --device cpu",
        OpenError::Cubins { .. } => {
            "name the folder of machine code with COTERIE_CUBINS, or use an image that has it"
        }
        OpenError::Refused { .. } => "look at the GPU's state on its node (nvidia-smi), or use --device cpu",
    }
}

impl LoadError {
    /// What a failed open of `path` means.
    pub(crate) fn of_open(path: &Path, source: std::io::Error) -> LoadError {
        let path = path.to_owned();
        match source.kind() {
            ErrorKind::NotFound => LoadError::MissingFile { path },
            _ if source.raw_os_error() == Some(ELOOP) => LoadError::NotAFile { path },
            _ => LoadError::Read { path, source },
        }
    }

    /// Who has to act: whoever made the folder, whoever wrote the command line, or whoever runs the machine.
    pub fn reason(&self) -> TerminationReason {
        match self {
            LoadError::Read { .. }
            | LoadError::Write { .. }
            | LoadError::NoMemory { .. }
            | LoadError::Exchange { .. }
            | LoadError::Gpu(_) => TerminationReason::Failed,
            LoadError::ContextTooLong { .. }
            | LoadError::ZeroOption { .. }
            | LoadError::CacheTooSmall { .. }
            | LoadError::CacheTooLarge { .. }
            | LoadError::StatesTooLarge { .. }
            | LoadError::ExpertMap { .. }
            | LoadError::NoDraftModule { .. }
            | LoadError::NoKernel { .. }
            | LoadError::Tiles { .. }
            | LoadError::OnlyOnGpus { .. }
            | LoadError::NoGpu(OpenError::Cubins { .. }) => TerminationReason::LaunchRejected,
            LoadError::NoGpu(_) | LoadError::NoGpuMemory { .. } => TerminationReason::DeviceUnusable,
            _ => TerminationReason::ModelRejected,
        }
    }
}
