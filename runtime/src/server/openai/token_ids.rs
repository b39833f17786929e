//! Token ids in a request.

use super::error::ApiError;
use super::parameters::{shortened, whole, wrong_type};
use serde_json::Value;

/// Takes `items`, which stand at `path`, as ids below `vocabulary`.
pub(super) fn token_ids(items: &[Value], path: &str, vocabulary: usize) -> Result<Vec<u32>, ApiError> {
    let id = |(at, item): (usize, &Value)| {
        let path = format!("{path}[{at}]");
        let number = whole(item).ok_or_else(|| wrong_type(&path, "a token id", item))?;
        existing(number, vocabulary).ok_or_else(|| no_token(&path, &shortened(item), vocabulary))
    };
    items.iter().enumerate().map(id).collect()
}

/// The token whose id is written as `text`, in the one way in which a number is written: what looks different is
/// different.
pub(super) fn token_of(text: &str, vocabulary: usize) -> Option<u32> {
    let id = text.parse().ok()?;
    existing(id, vocabulary).filter(|_| id.to_string() == text)
}

/// What stands at `path` is none of the model's tokens.
pub(super) fn no_token(path: &str, found: &str, vocabulary: usize) -> ApiError {
    let last = vocabulary.saturating_sub(1);
    let message = format!(
        "'{path}' names {found}, which is no token id: this model's are the integers from 0 to {last}."
    );
    ApiError::invalid(path, message)
}

fn existing(id: i128, vocabulary: usize) -> Option<u32> {
    u32::try_from(id).ok().filter(|id| (*id as usize) < vocabulary)
}
