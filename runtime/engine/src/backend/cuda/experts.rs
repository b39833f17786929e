//! A layer's experts without asking the host: the device chooses, orders tokens by experts, and brings answers back.

use super::Cuda;
use super::memory::{Buffer, CudaTensor, Lists};
use super::weights::{CudaMatrix, CudaVector, STEP};
use crate::model::config::plan::Activation;
use crate::moe::expert::Expert;
use coterie_kernels::cuda::device::{Device, Memory};
use coterie_kernels::cuda::gate::Gate;
use coterie_kernels::cuda::launch::Address;
use coterie_kernels::cuda::matmul::Product;
use coterie_kernels::cuda::rows::{Combine, Dispatch};
use coterie_kernels::gate::Rule;
use std::cell::RefCell;
use std::collections::BTreeMap;

/// Experts and weights of each token, `[tokens, per_token]` both.
pub(super) struct Chosen<D: Device> {
    /// Numbers (u32), and behind them weights.
    pub(super) memory: Buffer<D>,
    pub(super) choices: usize,
}

impl<D: Device> Chosen<D> {
    fn weights(&self) -> Address {
        self.memory.address() + words(self.choices)
    }
}

/// Bytes of so many numbers of 32 bits.
fn words(count: usize) -> Address {
    (count * size_of::<u32>()) as Address
}

/// A matrix an expert, with its scales and its biases: where lists of their addresses begin.
struct Matrices {
    weights: Address,
    scales: Address,
    biases: Option<Address>,
}

impl Matrices {
    fn new<D: Device>(
        lists: &mut Lists<Address>,
        all: &[&CudaMatrix<D>],
        biases: Option<Vec<Address>>,
    ) -> Matrices {
        Matrices {
            weights: lists.push(all.iter().map(|matrix| matrix.values())),
            scales: lists.push(all.iter().map(|matrix| matrix.scales())),
            biases: biases.map(|biases| lists.push(biases)),
        }
    }
}

/// Lists of addresses that stay on the device from step to step: of a layer's experts or heads, by the address of its first
/// matrix. One that has changed since, as experts have moved, is sent again; a rank whose experts move has no graphs, which would
/// know the old one.
pub(super) struct AddressLists<D: Device>(RefCell<BTreeMap<Address, List<D>>>);

struct List<D: Device> {
    addresses: Vec<Address>,
    memory: Memory<D>,
}

impl<D: Device> Default for AddressLists<D> {
    fn default() -> Self {
        AddressLists(RefCell::default())
    }
}

impl<D: Device> Cuda<D> {
    /// Where the list is that begins with the matrix at `first`.
    pub(super) fn list(&self, first: Address, addresses: Vec<Address>) -> Address {
        let mut lists = self.lists.0.borrow_mut();
        match lists.get(&first) {
            Some(list) if list.addresses == addresses => list.memory.address(),
            _ => {
                let memory = self.spare.lasting(&addresses);
                let address = memory.address();
                lists.insert(first, List { addresses, memory });
                address
            }
        }
    }
}

/// Of each expert the biases of these matrices, all first ones and then all second ones.
fn biases<D: Device + 'static>(experts: &[&Expert<Cuda<D>>], of: &[usize]) -> Option<Vec<Address>> {
    let each = of.iter().flat_map(|which| experts.iter().map(move |expert| (expert, *which)));
    each.map(|(expert, which)| Some(expert.biases.as_ref()?[which].memory.address())).collect()
}

impl<D: Device + 'static> Cuda<D> {
    /// Experts and weights of each row.
    pub(super) fn chosen(
        &self,
        logits: &CudaTensor<D>,
        correction: Option<&CudaVector<D>>,
        rule: &Rule,
    ) -> Chosen<D> {
        let choices = logits.rows * rule.per_token;
        let chosen = Chosen { memory: self.spare.take(2 * words(choices) as usize), choices };
        let bias = correction.map_or(0, |bias| bias.memory.address());
        let memory = [logits.address(), bias, chosen.memory.address(), chosen.weights()];
        let launch = Gate::launch(rule, memory, logits.rows, logits.width);
        self.launch(&launch.expect("models with too many experts are refused"));
        chosen
    }

    /// What the experts make of the rows of `x`. None if they are not all of one form.
    pub(super) fn all_experts(
        &self,
        x: &CudaTensor<D>,
        logits: &CudaTensor<D>,
        correction: Option<&CudaVector<D>>,
        rule: &Rule,
        experts: &[&Expert<Cuda<D>>],
    ) -> Option<CudaTensor<D>> {
        let one = experts.first()?;
        let alike = |e: &&Expert<Cuda<D>>| {
            [&e.w1, &e.w3].iter().all(|w| w.form == one.w1.form) && e.w2.form == one.w2.form
        };
        if !experts.iter().all(alike) {
            return None;
        }
        let chosen = self.chosen(logits, correction, rule);
        let choices = chosen.choices;
        let order = self.spare.take(words(experts.len() + 1 + 2 * choices) as usize);
        let offsets = order.address();
        let rows = offsets + words(experts.len() + 1);
        let places = rows + words(choices);
        let dispatch = Dispatch {
            ids: chosen.memory.address(),
            offsets,
            order: rows,
            places,
            choices: choices as u32,
            per_token: rule.per_token as u32,
            experts: experts.len() as u32,
        };
        self.launch(&dispatch.launch());

        let mut lists = Lists::default();
        let (gates, ups) = (experts.iter().map(|e| &e.w1), experts.iter().map(|e| &e.w3));
        let both = Matrices::new(&mut lists, &gates.chain(ups).collect::<Vec<_>>(), biases(experts, &[0, 2]));
        let downs: Vec<&CudaMatrix<D>> = experts.iter().map(|e| &e.w2).collect();
        let down = Matrices::new(&mut lists, &downs, biases(experts, &[1]));
        let base = self.list(one.w1.values(), lists.0);
        let narrow = self.narrow(x, x.rows, x.width);
        let inner_width = one.w1.outputs.next_multiple_of(STEP);
        let inner = self.spare.take(choices * inner_width * 2);
        let product = |matrices: &Matrices, w: &CudaMatrix<D>| {
            let (of_w, format) = w.product();
            let product = Product {
                offsets,
                weights: base + matrices.weights,
                scales: base + matrices.scales,
                biases: matrices.biases.map_or(0, |biases| base + biases),
                rows: choices as u32,
                experts: experts.len() as u32,
                ..of_w
            };
            (product, format)
        };
        let (first, format) = product(&both, &one.w1);
        let (clamped, [alpha, limit]) = match one.activation {
            Activation::Silu => (0, [0.0; 2]),
            Activation::ClampedSwiglu { alpha, limit } => (1, [alpha, limit]),
        };
        let (out, out_width) = (inner.address(), inner_width as u32);
        let first =
            Product { x: narrow.address(), order: rows, out, out_width, clamped, alpha, limit, ..first };
        self.launch(&first.launch_on(&*self.device, format, true, self.tiles_of(&first, format, true)));
        let answers = self.tensor(choices, one.w2.outputs);
        let (second, format) = product(&down, &one.w2);
        let second = Product { x: inner.address(), out: answers.address(), ..second };
        self.launch(&second.launch_on(&*self.device, format, false, self.tiles_of(&second, format, false)));

        let out = self.tensor(x.rows, answers.width);
        let combine = Combine {
            x: answers.address(),
            places,
            weights: chosen.weights(),
            out: out.address(),
            per_token: rule.per_token as u32,
            width: out.width as u32,
        };
        self.launch(&combine.launch(x.rows as u32));
        Some(out)
    }
}
