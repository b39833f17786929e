//! Compute kernels: ops on slices; they know no model and no request.

pub mod cpu;
pub mod cuda;
pub mod gate;
