//! What is measured: sizes of models as their `config.json` have them, and how many rows.

/// A MoE layer's experts.
#[derive(Clone, Copy, Debug)]
pub struct Experts {
    pub name: &'static str,
    pub count: usize,
    pub per_token: usize,
    pub hidden: usize,
    /// Values between an expert's matrices.
    pub inner: usize,
}

/// A layer's attention.
#[derive(Clone, Copy, Debug)]
pub struct Heads {
    pub name: &'static str,
    pub q_heads: usize,
    /// Heads of the cache; none where it has latents.
    pub kv_heads: Option<usize>,
    /// Values of a head; for latents, 512 and 64.
    pub head_dim: usize,
}

/// Everything that is measured.
#[derive(Clone, Debug)]
pub struct Sizes {
    pub experts: Vec<Experts>,
    pub heads: Vec<Heads>,
    /// Sequences of a decode.
    pub decode: Vec<usize>,
    /// Tokens of a prefill.
    pub prefill: usize,
    /// Keys that every sequence has.
    pub context: usize,
    /// Values of a row that is normed or added.
    pub hidden: usize,
    pub vocabulary: usize,
    /// Bytes that are walked through before the first is used again; several times the second cache.
    pub walked: usize,
    /// Most bytes of experts that are there at once, scales not counted.
    pub weights: usize,
    /// Bytes after which weights repeat.
    pub period: usize,
    /// Places at which a result is compared.
    pub places: usize,
    /// Launches in a row of which the host's part is measured: fewer than a stream keeps waiting.
    pub launches: usize,
}

impl Sizes {
    /// For a GPU with so much memory free, and with such a second cache.
    #[allow(dead_code)] // the test has none
    pub fn full(free: usize, l2: usize) -> Sizes {
        let experts =
            |name, count, per_token, hidden, inner| Experts { name, count, per_token, hidden, inner };
        Sizes {
            experts: vec![
                experts("Mixtral-8x7B", 8, 2, 4096, 14336),
                experts("Qwen3-30B-A3B", 128, 8, 2048, 768),
                experts("DeepSeek-V3", 256, 8, 7168, 2048),
                experts("MiniMax-Text-01", 32, 2, 6144, 9216),
            ],
            heads: vec![
                Heads { name: "32 heads of 128 over 4", q_heads: 32, kv_heads: Some(4), head_dim: 128 },
                Heads { name: "32 heads of 128 over 8", q_heads: 32, kv_heads: Some(8), head_dim: 128 },
                Heads { name: "128 heads over a latent", q_heads: 128, kv_heads: None, head_dim: 576 },
            ],
            decode: vec![1, 4, 16],
            prefill: 4096,
            context: 8192,
            hidden: 7168,
            vocabulary: 151_936,
            walked: (4 * l2).max(128 << 20),
            // All of DeepSeek-V3's in bf16, if there is room.
            weights: (24 << 30).min(free / 10 * 5),
            period: 32 << 20,
            places: 24,
            launches: 500,
        }
    }

    /// For the emulation: the same kernels and checks over little.
    #[allow(dead_code)] // the benchmark has one
    pub fn tiny() -> Sizes {
        let experts =
            |name, count, per_token, hidden, inner| Experts { name, count, per_token, hidden, inner };
        Sizes {
            experts: vec![experts("four", 4, 2, 128, 256), experts("nine", 9, 4, 256, 128)],
            heads: vec![
                Heads { name: "4 heads of 128 over 2", q_heads: 4, kv_heads: Some(2), head_dim: 128 },
                Heads { name: "3 heads over a latent", q_heads: 3, kv_heads: None, head_dim: 576 },
            ],
            decode: vec![1, 3],
            prefill: 40,
            context: 300,
            hidden: 96,
            vocabulary: 700,
            walked: 1 << 10,
            weights: 4 << 20,
            period: 1 << 14,
            places: 12,
            launches: 10,
        }
    }
}
