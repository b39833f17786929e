//! Sparse upcycling: a dense llama becomes a Mixture-of-Experts that speaks as well as it did.
//!
//! Each expert is the dense feed-forward with its hidden neurons in another random order: rows of w1 and w3 and columns
//! of w2 permuted alike. The gate is a random matrix. Experts differ in bytes and the gate's choices are real and
//! uneven, but every expert computes the same function and top-k weights sum to 1, so the output is the dense model's.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::rc::Rc;

use anyhow::{Context, Result, ensure};
use half::bf16;
use serde_json::{Map, json};

use super::bf16::dequantize;
use super::gguf::Gguf;
use super::random::{Purpose, Random};
use super::recipe::{self, DenseShape, EXPERTS, GATE_STD, INDEX_FILE, SHARDS};
use super::shard::Shard;
use crate::step::Step;

/// Writes the shards and their index.
pub fn write_weights(dir: &Path, gguf: &Gguf, dense: &DenseShape) -> Result<()> {
    let mut dense_tensors = DenseTensors { gguf, read: BTreeMap::new() };
    let (mut places, mut parameters, mut shard_bytes) = (Map::new(), 0, 0);
    for (number, tensors) in plan(dense).iter().enumerate() {
        let file = recipe::shard_file(number);
        let step = Step::start(format!("write {file}, {} tensors", tensors.len()));
        let plan = tensors.iter().map(|tensor| (tensor.name.as_str(), tensor.shape.as_slice()));
        let mut shard = Shard::create(&dir.join(&file), plan)?;
        for tensor in tensors {
            let values = make(tensor, dense, &mut dense_tensors)?;
            shard.append(&tensor.name, &values)?;
            parameters += values.len();
            places.insert(tensor.name.clone(), file.as_str().into());
        }
        shard_bytes += shard.finish()?;
        step.done();
    }
    let index = json!({
        "metadata": {
            "total_size": parameters * 2,
            "total_parameters": parameters,
            "recipe": recipe::key(),
            "shard_bytes": shard_bytes,
        },
        "weight_map": places,
    });
    let path = dir.join(INDEX_FILE);
    fs::write(&path, serde_json::to_string_pretty(&index)? + "\n")
        .with_context(|| format!("writing {}", path.display()))
}

/// One tensor of the result.
struct Planned {
    name: String,
    shape: Vec<usize>,
    source: Source,
}

/// What a tensor is made of; names are the GGUF's.
enum Source {
    /// The dense tensor as it is.
    Dense(String),
    /// q or k: llama.cpp keeps the two halves of each head's rows interleaved.
    Interleaved {
        dense: String,
        heads: usize,
    },
    Gate {
        layer: usize,
    },
    /// w1 or w3: rows in the expert's order.
    ExpertRows {
        dense: String,
        layer: usize,
        expert: usize,
    },
    /// w2: columns in the expert's order.
    ExpertColumns {
        dense: String,
        layer: usize,
        expert: usize,
    },
}

/// All tensors in the order in which they are written, layer by layer, split over the shards. The head is tied to the
/// embedding and has no tensor.
fn plan(dense: &DenseShape) -> [Vec<Planned>; SHARDS] {
    let mut shards = std::array::from_fn(|_| Vec::new());
    let embedding = Source::Dense("token_embd.weight".into());
    shards[0].push(planned("model.embed_tokens.weight", &[dense.vocabulary, dense.hidden], embedding));
    for layer in 0..dense.layers {
        shards[layer * SHARDS / dense.layers].extend(plan_layer(dense, layer));
    }
    let norm = Source::Dense("output_norm.weight".into());
    shards[SHARDS - 1].push(planned("model.norm.weight", &[dense.hidden], norm));
    shards
}

fn plan_layer(dense: &DenseShape, layer: usize) -> Vec<Planned> {
    let name = |tensor: &str| format!("model.layers.{layer}.{tensor}.weight");
    let from = |tensor: &str| format!("blk.{layer}.{tensor}.weight");
    let (hidden, ffn) = (dense.hidden, dense.intermediate);
    let (q, kv) = (dense.heads * dense.head_dim, dense.kv_heads * dense.head_dim);
    let mut tensors = vec![
        planned(&name("input_layernorm"), &[hidden], Source::Dense(from("attn_norm"))),
        planned(
            &name("self_attn.q_proj"),
            &[q, hidden],
            Source::Interleaved { dense: from("attn_q"), heads: dense.heads },
        ),
        planned(
            &name("self_attn.k_proj"),
            &[kv, hidden],
            Source::Interleaved { dense: from("attn_k"), heads: dense.kv_heads },
        ),
        planned(&name("self_attn.v_proj"), &[kv, hidden], Source::Dense(from("attn_v"))),
        planned(&name("self_attn.o_proj"), &[hidden, q], Source::Dense(from("attn_output"))),
        planned(&name("post_attention_layernorm"), &[hidden], Source::Dense(from("ffn_norm"))),
        planned(&name("block_sparse_moe.gate"), &[EXPERTS, hidden], Source::Gate { layer }),
    ];
    for expert in 0..EXPERTS {
        let name = |matrix: &str| name(&format!("block_sparse_moe.experts.{expert}.{matrix}"));
        let rows = |tensor: &str| Source::ExpertRows { dense: from(tensor), layer, expert };
        let columns = Source::ExpertColumns { dense: from("ffn_down"), layer, expert };
        tensors.push(planned(&name("w1"), &[ffn, hidden], rows("ffn_gate")));
        tensors.push(planned(&name("w2"), &[hidden, ffn], columns));
        tensors.push(planned(&name("w3"), &[ffn, hidden], rows("ffn_up")));
    }
    tensors
}

fn planned(name: &str, shape: &[usize], source: Source) -> Planned {
    Planned { name: name.to_owned(), shape: shape.to_vec(), source }
}

fn make(tensor: &Planned, dense: &DenseShape, dense_tensors: &mut DenseTensors) -> Result<Rc<Vec<u16>>> {
    let shape = &tensor.shape;
    Ok(match &tensor.source {
        Source::Dense(name) => dense_tensors.get(name, shape)?,
        Source::Interleaved { dense: name, heads } => {
            let rows = deinterleave(*heads, dense.head_dim);
            select_rows(&dense_tensors.get(name, shape)?, shape[1], &rows).into()
        }
        Source::Gate { layer } => gate(*layer, shape.iter().product()).into(),
        Source::ExpertRows { dense: name, layer, expert } => {
            let order = neuron_order(dense, *layer, *expert);
            select_rows(&dense_tensors.get(name, shape)?, shape[1], &order).into()
        }
        Source::ExpertColumns { dense: name, layer, expert } => {
            let order = neuron_order(dense, *layer, *expert);
            select_columns(&dense_tensors.get(name, shape)?, shape[1], &order).into()
        }
    })
}

/// Dense tensors in bf16. Those of a feed-forward are wanted once per expert and kept until another layer begins.
struct DenseTensors<'a> {
    gguf: &'a Gguf,
    read: BTreeMap<String, Rc<Vec<u16>>>,
}

impl DenseTensors<'_> {
    fn get(&mut self, name: &str, shape: &[usize]) -> Result<Rc<Vec<u16>>> {
        if let Some(values) = self.read.get(name) {
            return Ok(Rc::clone(values));
        }
        let tensor = self.gguf.tensor(name)?;
        ensure!(tensor.shape == shape, "GGUF tensor {name} is {:?}, expected {shape:?}", tensor.shape);
        let values = Rc::new(dequantize(tensor.format, &self.gguf.read(name)?));
        if !name.contains("ffn_") || self.read.len() == 3 {
            self.read.clear();
        }
        self.read.insert(name.to_owned(), Rc::clone(&values));
        Ok(values)
    }
}

fn gate(layer: usize, values: usize) -> Vec<u16> {
    let mut random = Random::new(Purpose::Gate, layer, 0);
    (0..values).map(|_| bf16::from_f64(random.normal() * GATE_STD).to_bits()).collect()
}

fn neuron_order(dense: &DenseShape, layer: usize, expert: usize) -> Vec<usize> {
    Random::new(Purpose::Permutation, layer, expert).permutation(dense.intermediate)
}

/// For each row of HuggingFace's order (first halves, then second halves of a head) the GGUF row that holds it.
fn deinterleave(heads: usize, head_dim: usize) -> Vec<usize> {
    let half = head_dim / 2;
    (0..heads * head_dim)
        .map(|row| {
            let (head, within) = (row / head_dim, row % head_dim);
            head * head_dim + 2 * (within % half) + within / half
        })
        .collect()
}

fn select_rows(matrix: &[u16], width: usize, rows: &[usize]) -> Vec<u16> {
    let mut out = Vec::with_capacity(matrix.len());
    for &row in rows {
        out.extend_from_slice(&matrix[row * width..(row + 1) * width]);
    }
    out
}

fn select_columns(matrix: &[u16], width: usize, columns: &[usize]) -> Vec<u16> {
    let mut out = Vec::with_capacity(matrix.len());
    for row in matrix.chunks_exact(width) {
        out.extend(columns.iter().map(|&column| row[column]));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shape() -> DenseShape {
        DenseShape {
            layers: 3,
            hidden: 8,
            heads: 2,
            kv_heads: 1,
            head_dim: 4,
            intermediate: 6,
            vocabulary: 5,
            context: 16,
            rope_theta: 1e4,
            rms_norm_eps: 1e-5,
        }
    }

    #[test]
    fn heads_are_deinterleaved_one_by_one() {
        assert_eq!(deinterleave(2, 6), [0, 2, 4, 1, 3, 5, 6, 8, 10, 7, 9, 11]);
    }

    #[test]
    fn every_tensor_is_planned_once_and_layers_are_not_split() {
        let shards = plan(&shape());
        let names: Vec<&str> = shards.iter().flatten().map(|tensor| tensor.name.as_str()).collect();
        let distinct: std::collections::BTreeSet<&str> = names.iter().copied().collect();
        assert_eq!((names.len(), distinct.len()), (2 + 3 * (7 + 3 * EXPERTS), names.len()));
        for layer in 0..3 {
            let prefix = format!("model.layers.{layer}.");
            let holders =
                shards.iter().filter(|shard| shard.iter().any(|tensor| tensor.name.starts_with(&prefix)));
            assert_eq!(holders.count(), 1, "layer {layer}");
        }
    }

    /// The claim of the recipe: an expert computes what the dense feed-forward does.
    #[test]
    fn a_permuted_feed_forward_is_the_same_function() {
        let dense = shape();
        let (hidden, ffn) = (dense.hidden, dense.intermediate);
        let matrix = |seed: usize, len: usize| -> Vec<u16> {
            let mut random = Random::new(Purpose::Gate, seed, 1);
            (0..len).map(|_| bf16::from_f64(random.normal()).to_bits()).collect()
        };
        let (w1, w2, w3) = (matrix(1, ffn * hidden), matrix(2, hidden * ffn), matrix(3, ffn * hidden));
        let x: Vec<f32> = (0..hidden).map(|value| value as f32 - 3.5).collect();
        let expected = feed_forward(&w1, &w2, &w3, &x);
        for expert in 0..EXPERTS {
            let order = neuron_order(&dense, 1, expert);
            let (w1, w3) = (select_rows(&w1, hidden, &order), select_rows(&w3, hidden, &order));
            let got = feed_forward(&w1, &select_columns(&w2, ffn, &order), &w3, &x);
            for (got, expected) in got.iter().zip(&expected) {
                assert!((got - expected).abs() < 1e-4, "expert {expert}: {got} for {expected}");
            }
        }
    }

    fn feed_forward(w1: &[u16], w2: &[u16], w3: &[u16], x: &[f32]) -> Vec<f32> {
        let times = |matrix: &[u16], x: &[f32]| -> Vec<f32> {
            let dot = |row: &[u16]| row.iter().zip(x).map(|(w, x)| bf16::from_bits(*w).to_f32() * x).sum();
            matrix.chunks_exact(x.len()).map(dot).collect()
        };
        let silu = |value: f32| value / (1.0 + (-value).exp());
        let inner: Vec<f32> =
            times(w1, x).into_iter().zip(times(w3, x)).map(|(gate, up)| silu(gate) * up).collect();
        times(w2, &inner)
    }
}
