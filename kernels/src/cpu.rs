//! Ops on the CPU.
//!
//! Conventions: activations are row-major `f32`, weights row-major `[out, in]`. Every op takes the [`pool::Pool`]
//! that carries the worker threads and the instruction set ([`isa::Isa`]).
//!
//! Two promises hold for every op and are tested bit by bit:
//! - a row's result depends on that row alone, never on which other rows are in the batch;
//! - a result does not depend on the number of threads or on the instruction set.
//!
//! Both follow from one rule: the order in which numbers are added into one output element is part of an op's
//! specification (the scalar reference on top of each file), and blocking never changes it.
//!
//! Slices of a wrong length are a caller's bug: ops assert on them.

#![allow(clippy::needless_range_loop)] // tiles are indexed by row and column

pub mod activation;
pub mod attention;
mod disjoint;
pub mod fp8;
pub mod gate;
pub mod heads;
pub mod int4;
pub mod isa;
mod lanes;
pub mod lightning;
pub mod logits;
pub mod matmul;
pub mod memory;
pub mod moe;
pub mod mxfp4;
pub mod norm;
pub mod pool;
pub mod quant;
pub mod random;
pub mod rope;
mod scratch;
