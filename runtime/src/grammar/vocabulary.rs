//! A model's tokens as llguidance wants them: their bytes, in a tree.

use crate::tokenizer::Tokenizer;
use llguidance::ParserFactory;
use llguidance::earley::SlicedBiasComputer;
use llguidance::toktrie::{ApproximateTokEnv, InferenceCapabilities, TokEnv, TokRxInfo, TokTrie};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

/// Longer tokens never come in an answer with a form, bytes; the tree cannot hold them.
const LONGEST_TOKEN: usize = 1000;
/// The tree has 24 bits for a token.
const MOST_TOKENS: usize = 1 << 24;

/// What compiles grammars over the first `vocabulary` tokens of `tokenizer`. The error says why this model has none.
pub(super) fn factory(
    tokenizer: &Tokenizer,
    vocabulary: usize,
    stop_tokens: &[u32],
) -> Result<ParserFactory, String> {
    let stops: Vec<u32> =
        stop_tokens.iter().copied().filter(|token| (*token as usize) < vocabulary).collect();
    let [first_stop, ..] = stops[..] else {
        return Err("it has no token that ends an answer".to_owned());
    };
    if vocabulary >= MOST_TOKENS {
        return Err(format!("its vocabulary has {vocabulary} tokens, too many"));
    }
    // A stop token is one even where the tokenizer does not say so: as text it would end a string in the middle.
    let structure = |token| tokenizer.is_special(token) || stops.contains(&token);
    let words: Vec<Vec<u8>> =
        (0..vocabulary as u32).map(|token| word(tokenizer, token, structure(token))).collect();
    let build = || {
        let tokens = TokRxInfo::new(vocabulary as u32, first_stop);
        let trie = TokTrie::from(&tokens, &words).with_eos_tokens(&stops);
        // Approximate: text is never split into tokens here, the model chooses how it spells what is forced.
        let environment: TokEnv = Arc::new(ApproximateTokEnv::new(trie));
        let slices = SlicedBiasComputer::general_slices();
        ParserFactory::new(&environment, InferenceCapabilities::default(), &slices)
    };
    // The tree's limits are assertions.
    let built =
        catch_unwind(AssertUnwindSafe(build)).map_err(|_| "its vocabulary does not fit".to_owned())?;
    built.map_err(|error| format!("its vocabulary does not fit: {error}"))
}

/// A token's bytes; structure is marked by a byte that no text has.
fn word(tokenizer: &Tokenizer, token: u32, structure: bool) -> Vec<u8> {
    let mut bytes = tokenizer.bytes(token);
    if structure && !bytes.is_empty() {
        bytes.insert(0, TokTrie::SPECIAL_TOKEN_MARKER);
    }
    if bytes.len() > LONGEST_TOKEN { Vec::new() } else { bytes }
}
