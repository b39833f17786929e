//! How a gate chooses experts, whatever the device.

/// From a token's logits, one for each expert, to its experts and their weights: scores are taken of the logits, a
/// bias is added where there is one, whole groups of experts are left out, the best are chosen, and their scores without
/// the bias become their weights.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rule {
    /// Experts that one token uses.
    pub per_token: usize,
    /// What a logit is worth.
    pub scores: Scores,
    /// Which groups of experts a token may use, if not all.
    pub groups: Option<Groups>,
    /// Are the weights of the chosen divided by their sum?
    pub renormalise: bool,
    /// What every weight is multiplied with at last.
    pub factor: f32,
}

/// What a gate's logits are worth.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scores {
    /// Softmax over all experts.
    Softmax,
    /// 1 / (1 + e^-logit).
    Sigmoid,
    /// The logits choose; the weights are the softmax over the chosen.
    SoftmaxOfChosen,
}

/// Experts in groups of neighbours, the best of which may be used (DeepSeek-V2, section 2.2.2; DeepSeek-V3, 2.1.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Groups {
    /// How many there are; divides the number of experts.
    pub count: usize,
    /// How many a token may use.
    pub kept: usize,
    /// What a group is worth.
    pub worth: Worth,
}

/// What a group of experts is worth to a token, by the scores with bias.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Worth {
    /// Its best expert's.
    Best,
    /// The sum of its two best experts'.
    TwoBest,
}
