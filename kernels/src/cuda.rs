//! Ops on CUDA devices: how each kernel of `cu/` is launched. Nothing here needs a driver, a device or a compiler to be built.
//!
//! An op's file has the struct that its kernels take, and makes a [`Launch`](launch::Launch) of it, which a
//! [`Device`](device::Device) carries out: a GPU by its [`driver`], or the emulation of the tests. The same promise holds as on the [CPU](super::cpu): a row's
//! result depends on that row alone, bit by bit, on one kind of device. It rests on orders of additions that depend on
//! an op's widths alone, never on how many rows there are.

pub mod attention;
pub mod dense;
pub mod device;
pub mod driver;
pub mod elements;
pub mod gate;
pub mod heads;
pub mod hopper;
mod kernels;
pub mod launch;
pub mod lightning;
pub mod matmul;
pub mod norm;
pub mod quantize;
pub mod random;
pub mod rotary;
pub mod rows;
pub mod sample;
pub mod tiles;
pub mod timed;

pub use kernels::{HOPPER, KERNELS, compiled_for};
