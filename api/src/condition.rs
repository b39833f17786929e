//! Condition types of a ModelDeployment and their reasons. Both are published: scripts and alerts may match on them.
//!
//! Every message of a condition that is not `True` ends with what to do about it.

/// The sum: everything that was asked for is in effect. Its reason and message are those of the first condition
/// below that is not `True`, in the order of [`PARTS`].
pub const READY: &str = "Ready";
/// The spec makes sense and the weights are a model that this runtime can serve.
pub const VALID: &str = "Valid";
/// Every replica has found the memory and the devices that it needs.
pub const PLACED: &str = "Placed";
/// A rank of the current revision holds the weights.
pub const WEIGHTS_LOADED: &str = "WeightsLoaded";
/// Requests are answered, by whatever revision.
pub const SERVING: &str = "Serving";
/// Every wanted replica runs the current revision and is ready; no older one is left in service.
pub const ROLLED_OUT: &str = "RolledOut";

/// What [`READY`] sums up, in the order in which things have to come true.
pub const PARTS: [&str; 5] = [VALID, PLACED, WEIGHTS_LOADED, SERVING, ROLLED_OUT];

/// Reasons, the machine-readable half of a condition.
pub mod reason {
    /// Ready: all parts are true.
    pub const AS_ASKED: &str = "AsAsked";

    /// Valid: the spec was accepted and the weights were inspected.
    pub const ACCEPTED: &str = "Accepted";
    /// Valid: a field of the spec breaks a rule; the message names both.
    pub const INVALID_SPEC: &str = "InvalidSpec";
    /// Valid: the inspect pod is on its way, or looks at the weights right now.
    pub const INSPECTING: &str = "Inspecting";
    /// Valid: the claim that `model.source` names does not exist.
    pub const CLAIM_NOT_FOUND: &str = "ClaimNotFound";
    /// Valid, WeightsLoaded, Serving, RolledOut: an image (of the weights or of the runtime) cannot be pulled.
    pub const IMAGE_NOT_PULLED: &str = "ImageNotPulled";
    /// Valid: no node takes the inspect pod.
    pub const INSPECT_NOT_PLACED: &str = "InspectNotPlaced";
    /// Valid: the inspect pod ended without a verdict; it is tried again.
    pub const INSPECT_FAILED: &str = "InspectFailed";
    /// Valid, and the others if a rank finds it: the files are not a model that the runtime can load; they are
    /// inspected again from time to time.
    pub const MODEL_REJECTED: &str = "ModelRejected";
    /// Valid: `model.contextLength` is longer than the model was made for.
    pub const CONTEXT_TOO_LONG: &str = "ContextTooLong";
    /// Valid: `ranks` is more than the model has experts.
    pub const TOO_MANY_RANKS: &str = "TooManyRanks";
    /// Valid: `experts.redundant` is more than the other ranks can hold once each.
    pub const TOO_MANY_COPIES: &str = "TooManyCopies";
    /// Valid: `model.speculate` is Mtp, and the checkpoint has no draft module.
    pub const NO_DRAFT_MODULE: &str = "NoDraftModule";

    /// Placed: every wanted rank has a node.
    pub const PLACED: &str = "Placed";
    /// Placed and later parts: the weights have to be known first.
    pub const WAITING_FOR_INSPECTION: &str = "WaitingForInspection";
    /// Placed: the memory limit of `template.resources` is smaller than one rank needs.
    pub const MEMORY_LIMIT_TOO_SMALL: &str = "MemoryLimitTooSmall";
    /// Placed: this build of the runtime cannot serve the model on the device that was asked for.
    pub const DEVICE_UNSUPPORTED: &str = "DeviceUnsupported";
    /// Placed, WeightsLoaded, Serving, RolledOut: a rank has a node and cannot use its GPUs.
    pub const DEVICE_UNUSABLE: &str = "DeviceUnusable";
    /// Placed: `template.nodeSelector` and `template.tolerations` leave no node at all.
    pub const NO_ELIGIBLE_NODE: &str = "NoEligibleNode";
    /// Placed: no node is large enough, even when empty.
    pub const NODE_TOO_SMALL: &str = "NodeTooSmall";
    /// Placed: no node has as many GPUs as one rank asks for.
    pub const TOO_FEW_GPUS: &str = "TooFewGpus";
    /// Placed: a node would be large enough, but its room is taken.
    pub const NO_ROOM: &str = "NoRoom";
    /// Placed: there is room, and the scheduler takes no node for another reason; the message is its own.
    pub const UNSCHEDULABLE: &str = "Unschedulable";
    /// Placed: ranks exist and the scheduler has not placed all of them yet.
    pub const SCHEDULING: &str = "Scheduling";

    /// WeightsLoaded: at least one rank of the current revision is ready.
    pub const LOADED: &str = "Loaded";
    /// WeightsLoaded: ranks are starting.
    pub const LOADING: &str = "Loading";
    /// WeightsLoaded, Serving, RolledOut: a rank's process ends again and again.
    pub const CRASH_LOOP: &str = "CrashLoop";
    /// WeightsLoaded, Serving, RolledOut: a rank's process ended and is started again.
    pub const RESTARTING: &str = "Restarting";
    /// WeightsLoaded, Serving, RolledOut: a rank that was ready runs and does not pass its probes any more.
    pub const NOT_ANSWERING: &str = "NotAnswering";
    /// WeightsLoaded, Serving, RolledOut: `replicas` is 0.
    pub const SCALED_TO_ZERO: &str = "ScaledToZero";
    /// Any part: an earlier condition has to come true first; the message names it.
    pub const BLOCKED: &str = "Blocked";

    /// Serving: at least one rank answers.
    pub const ANSWERING: &str = "Answering";
    /// Serving: no rank is ready.
    pub const NO_RANK_READY: &str = "NoRankReady";
    /// Serving, RolledOut: a Service of a needed name belongs to somebody else.
    pub const SERVICE_NAME_TAKEN: &str = "ServiceNameTaken";
    /// RolledOut: the Secret of the exchange's name belongs to somebody else.
    pub const SECRET_NAME_TAKEN: &str = "SecretNameTaken";

    /// RolledOut: all replicas run the current revision.
    pub const COMPLETE: &str = "Complete";
    /// RolledOut: replicas are being made, replaced or removed.
    pub const PROGRESSING: &str = "Progressing";
    /// RolledOut: the new revision does not become ready; the old one keeps serving.
    pub const HELD: &str = "Held";
    /// RolledOut: a pod failed again; its replacement waits for its back-off.
    pub const BACKING_OFF: &str = "BackingOff";
    /// No condition, only an Event: experts are moved between ranks; the message says how many and why.
    pub const EXPERTS_MOVING: &str = "ExpertsMoving";
    /// No condition, only an Event: every rank goes by the new expert map.
    pub const EXPERTS_MOVED: &str = "ExpertsMoved";
    /// No condition, only an Event: no ready rank was given some experts; the others take them over.
    pub const EXPERTS_LOST: &str = "ExpertsLost";
    /// No condition, only an Event: the certificates of the exchange were of no use and are replaced; the message says why.
    pub const CERTIFICATES_REPLACED: &str = "CertificatesReplaced";
    /// No condition, only an Event: the scaler wants another number of replicas; the message says which and why.
    pub const SCALED: &str = "Scaled";
    /// No condition, only an Event: the API server refused the status; the message is its answer.
    pub const STATUS_REFUSED: &str = "StatusRefused";
    /// RolledOut: the API server refused an object; the message is its answer.
    pub const APPLY_FAILED: &str = "ApplyFailed";
}
