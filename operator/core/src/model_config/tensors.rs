//! What holding tensors takes, by the runtime's rules: matrices as in the checkpoint, in int8 or in int4, vectors in f32.

use super::keys::{Keys, NoSizes};
use coterie_api::launch::WeightBytes;

/// Values of a row of an int8 matrix that share a scale, and bytes of a scale (kernels/src/cpu/quant.rs).
const INT8_GROUP: u128 = 64;
const INT8_SCALE: u128 = 4;
/// Values of a group in int4, and its bytes with its scale (kernels/src/cpu/int4.rs).
const INT4_GROUP: u128 = 32;
const INT4_GROUP_BYTES: u128 = 16 + 4;
const F32: u128 = 4;

/// What a matrix is for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    /// Quantized; every token uses it.
    Dense,
    /// Quantized; a routed expert's.
    Expert,
    /// The same, MXFP4 in the checkpoint.
    PackedExpert,
    /// Never quantized: embeddings and gates.
    Kept,
    /// Kept, and f32 in the checkpoint.
    KeptWide,
}

/// Sums over tensors. All are of numbers within the limits of [`keys`](super::keys), so that 128 bits never overflow.
#[derive(Clone, Default)]
pub(super) struct Tensors {
    /// Bytes of a value of a matrix as the checkpoint holds it.
    plain: u128,
    values: u128,
    expert_values: u128,
    none: u128,
    expert_none: u128,
    int8: u128,
    expert_int8: u128,
    int4: u128,
    expert_int4: u128,
}

/// The sums of [`Tensors`].
pub(super) struct Sums {
    pub(super) values: u64,
    pub(super) expert_values: u64,
    pub(super) bytes: WeightBytes,
    pub(super) expert_bytes: WeightBytes,
}

impl Tensors {
    /// None yet; f32 checkpoints are held as they are, all others as bf16.
    pub(super) fn new(keys: &Keys) -> Self {
        let wide = keys.text("dtype").or(keys.text("torch_dtype")) == Some("float32");
        Self { plain: if wide { F32 } else { 2 }, ..Self::default() }
    }

    /// `count` matrices of `[outputs, inputs]`.
    pub(super) fn matrices(&mut self, role: Role, count: u64, [outputs, inputs]: [u64; 2]) {
        let (count, outputs, inputs) = (u128::from(count), u128::from(outputs), u128::from(inputs));
        let values = count * outputs * inputs;
        let none = match role {
            Role::KeptWide => values * F32,
            // Four bits, and eight for each 32 values.
            Role::PackedExpert => values * 17 / 32,
            _ => values * self.plain,
        };
        let [int8, int4] = match role {
            Role::Kept | Role::KeptWide => [none; 2],
            Role::Dense | Role::Expert | Role::PackedExpert => [
                values + count * outputs * inputs.div_ceil(INT8_GROUP) * INT8_SCALE,
                count * outputs * inputs.div_ceil(INT4_GROUP) * INT4_GROUP_BYTES,
            ],
        };
        self.add(role, values, [none, int8, int4]);
    }

    /// `count` vectors of `length` values.
    pub(super) fn vectors(&mut self, role: Role, count: u64, length: u64) {
        let values = u128::from(count) * u128::from(length);
        self.add(role, values, [values * F32; 3]);
    }

    fn add(&mut self, role: Role, values: u128, [none, int8, int4]: [u128; 3]) {
        self.values += values;
        self.none += none;
        self.int8 += int8;
        self.int4 += int4;
        if matches!(role, Role::Expert | Role::PackedExpert) {
            self.expert_values += values;
            self.expert_none += none;
            self.expert_int8 += int8;
            self.expert_int4 += int4;
        }
    }

    /// A gated feed-forward network: two matrices up, one down.
    pub(super) fn feed_forward(&mut self, role: Role, count: u64, hidden: u64, width: u64) {
        self.matrices(role, 2 * count, [width, hidden]);
        self.matrices(role, count, [hidden, width]);
    }

    /// What a layer that guesses ahead has beside a layer: three norms, and a projection of a token and what was made of
    /// the one before it. Embedding and head are the model's.
    pub(super) fn draft_module(&mut self, hidden: u64) {
        self.vectors(Role::Dense, 3, hidden);
        self.matrices(Role::Dense, 1, [hidden, 2 * hidden]);
    }

    /// Embedding, final norm, and the head, unless that is the embedding.
    pub(super) fn ends(&mut self, keys: &Keys, vocabulary: u64, hidden: u64) -> Result<(), NoSizes> {
        self.matrices(Role::Kept, 1, [vocabulary, hidden]);
        self.vectors(Role::Dense, 1, hidden);
        if !keys.flag("tie_word_embeddings")? {
            self.matrices(Role::Dense, 1, [vocabulary, hidden]);
        }
        Ok(())
    }

    pub(super) fn sums(&self) -> Result<Sums, NoSizes> {
        let fits = |sum: u128| u64::try_from(sum).map_err(|_| NoSizes::TooLarge);
        let bytes = |[none, int8, int4]: [u128; 3]| -> Result<WeightBytes, NoSizes> {
            Ok(WeightBytes { none: fits(none)?, int8: fits(int8)?, int4: Some(fits(int4)?) })
        };
        Ok(Sums {
            values: fits(self.values)?,
            expert_values: fits(self.expert_values)?,
            bytes: bytes([self.none, self.int8, self.int4])?,
            expert_bytes: bytes([self.expert_none, self.expert_int8, self.expert_int4])?,
        })
    }
}
