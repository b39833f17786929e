//! The operator's decisions: pure functions from what was asked and seen to what is wanted.
