//! The way of a request through the front door: it waits for a rank, is sent there, and its answer comes back. If the
//! rank is lost on the way, another one goes on.

mod ledger;
mod splitter;
mod stream;
mod tries;
mod whole;

pub(super) use stream::streamed;
pub(super) use whole::whole;
