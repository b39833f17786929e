//! Memory that ops reuse from call to call: shared by a run's threads ([`Scratch`]), or one thread's own ([`with`]).

use std::cell::RefCell;

use super::attention::Partials;
use super::matmul::{Part, QuantizedRows};

/// What ops on one pool keep between calls.
#[derive(Default)]
pub(crate) struct Scratch {
    pub(crate) rows: QuantizedRows,
    pub(crate) parts: Vec<Part>,
    pub(crate) partials: Partials,
}

/// One cache line, so that scratch starts on one.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
struct Line([f32; 16]);

thread_local! {
    /// What is not in use; as many as calls were ever nested.
    static OWN: RefCell<Vec<Vec<Line>>> = const { RefCell::new(Vec::new()) };
}

/// Calls `body` with `len` floats of this thread's own scratch, whatever they held before. Calls may nest.
pub(crate) fn with<R>(len: usize, body: impl FnOnce(&mut [f32]) -> R) -> R {
    let mut lines = OWN.with_borrow_mut(Vec::pop).unwrap_or_default();
    if lines.len() * 16 < len {
        lines.resize(len.div_ceil(16), Line([0.0; 16]));
    }
    // SAFETY: a line is sixteen floats without padding, and there are lines enough.
    let result = body(unsafe { std::slice::from_raw_parts_mut(lines.as_mut_ptr().cast(), len) });
    OWN.with_borrow_mut(|own| own.push(lines));
    result
}
