//! Prompt lookup: what follows the tokens so far is guessed to be what followed the same tokens when they were there
//! before. Answers quote their prompts, and repeat themselves.
//!
//! The places of every pair of tokens are chained, the newest first, as LZ77 compressors do it. A guess looks at the
//! newest few, so it costs the same however long the text is, and a token is indexed once.

/// Tokens that must have been there before.
const SHORTEST: usize = 2;
/// Of places where more tokens match, none is better than another.
pub const LONGEST: usize = 16;
/// Places that a guess looks at.
const PLACES: usize = 8;
/// Tokens that one guess indexes. Until a long prompt is indexed nothing is guessed.
const INDEXED: usize = 4096;
/// Chains that there are at most.
const CHAINS: usize = 1 << 20;

/// The places of the pairs of one growing text.
#[derive(Debug)]
pub struct Lookup {
    /// By the hash of a pair: where the text was last behind such a pair, in tokens; 0 if it never was.
    newest: Vec<u32>,
    /// By a place, that is, a number of tokens: the place before it in its chain. All tokens below its length are
    /// indexed.
    before: Vec<u32>,
}

/// Where the end of a text was before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Match {
    /// Tokens up to its end there.
    place: usize,
    /// How many of them are those at the end.
    pub length: usize,
}

impl Match {
    /// Replaces `guess` with `many` tokens that may follow `tokens`, the text.
    pub fn continuation(&self, tokens: &[u32], many: usize, guess: &mut Vec<u32>) {
        guess.clear();
        for at in self.place..self.place + many {
            // Behind its end the text goes on as guessed: a loop of three tokens is a guess of any length.
            let token = tokens.get(at).copied().unwrap_or_else(|| guess[at - tokens.len()]);
            guess.push(token);
        }
    }
}

impl Lookup {
    /// An index of a text that grows to `tokens` tokens.
    pub fn new(tokens: usize) -> Lookup {
        Lookup { newest: vec![0; tokens.next_power_of_two().clamp(1, CHAINS)], before: Vec::new() }
    }

    /// Looks for the end of `tokens`, the text: a place behind as many of the same tokens as were found, and how many
    /// these are, up to [`LONGEST`].
    pub fn find(&mut self, tokens: &[u32]) -> Option<Match> {
        self.index(tokens);
        if self.before.len() <= tokens.len() {
            return None;
        }
        let (mut best, mut length, mut place) = (0, SHORTEST - 1, tokens.len());
        for _ in 0..PLACES {
            place = self.before[place] as usize;
            if place == 0 {
                break;
            }
            let same = shared_end(&tokens[..place], tokens);
            if same > length {
                (best, length) = (place, same);
            }
        }
        (length >= SHORTEST).then_some(Match { place: best, length })
    }

    /// Indexes the next tokens.
    fn index(&mut self, tokens: &[u32]) {
        let end = (tokens.len() + 1).min(self.before.len() + INDEXED);
        for place in self.before.len()..end {
            let Some(pair) = tokens[..place].last_chunk::<SHORTEST>() else {
                self.before.push(0);
                continue;
            };
            let chain = chain(*pair) & (self.newest.len() - 1);
            self.before.push(std::mem::replace(&mut self.newest[chain], place as u32));
        }
    }
}

/// How many tokens two texts have in common at their ends, up to [`LONGEST`].
fn shared_end(one: &[u32], other: &[u32]) -> usize {
    let pairs = one.iter().rev().zip(other.iter().rev()).take(LONGEST);
    pairs.take_while(|(one, other)| one == other).count()
}

/// Multiplicative hashing (Knuth, TAOCP 3, 6.4).
fn chain([first, second]: [u32; SHORTEST]) -> usize {
    let pair = u64::from(first) << 32 | u64::from(second);
    (pair.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 40) as usize
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn guess(tokens: &[u32], most: usize) -> Vec<u32> {
        let (mut guess, mut found) = (vec![99], None);
        let mut lookup = Lookup::new(tokens.len());
        for end in (0..tokens.len()).step_by(3).chain([tokens.len()]) {
            found = lookup.find(&tokens[..end]);
        }
        found.map_or(Vec::new(), |found| {
            found.continuation(tokens, most, &mut guess);
            guess
        })
    }

    #[test]
    fn what_followed_before_follows_again() {
        assert_eq!(guess(&[5, 6, 7, 8, 9, 5, 6], 2), [7, 8]);
        assert_eq!(guess(&[5, 6, 7, 8, 9, 5, 6], 5), [7, 8, 9, 5, 6]);
        assert_eq!(guess(&[5, 6, 7, 8, 9, 5, 6], 7), [7, 8, 9, 5, 6, 7, 8], "and so on");
        assert_eq!(guess(&[5, 6, 7, 8, 9, 5, 6], 0), [0; 0]);
    }

    #[test]
    fn a_new_end_is_not_guessed_behind() {
        assert_eq!(guess(&[], 3), [0; 0]);
        assert_eq!(guess(&[1], 3), [0; 0]);
        assert_eq!(guess(&[1, 1], 3), [0; 0]);
        assert_eq!(guess(&[1, 2, 3, 4], 3), [0; 0]);
        assert_eq!(guess(&[1, 2, 3, 9, 2], 3), [0; 0], "one token is too little");
    }

    #[test]
    fn the_longest_match_counts_then_the_newest() {
        assert_eq!(guess(&[1, 2, 3, 70, 9, 2, 3, 80, 1, 2, 3], 1), [70]);
        assert_eq!(guess(&[9, 2, 3, 70, 8, 2, 3, 80, 1, 2, 3], 1), [80]);
        assert_eq!(guess(&[1, 1, 1, 1], 3), [1, 1, 1]);
    }

    #[test]
    fn a_long_text_is_indexed_in_pieces() {
        let tokens: Vec<u32> = (0..3 * INDEXED as u32).chain([7, 8]).collect();
        let mut lookup = Lookup::new(tokens.len());
        assert_eq!([0; 3].map(|_| lookup.find(&tokens)), [None; 3]);
        assert_eq!(lookup.find(&tokens), Some(Match { place: 9, length: 2 }));
    }

    proptest! {
        /// With few places each is looked at: then it is the definition.
        #[test]
        fn it_is_what_looking_through_everything_finds(
            tokens in prop::collection::vec(0u32..40, 0..60), most in 1usize..6,
        ) {
            let places = (SHORTEST..tokens.len()).rev();
            let ends = places.map(|place| (shared_end(&tokens[..place], &tokens), place));
            let known: Vec<(usize, usize)> = ends.filter(|(same, _)| *same >= SHORTEST).collect();
            prop_assume!(known.len() < 4);
            let longest = known.iter().map(|(same, _)| *same).max();
            let best = known.iter().find(|(same, _)| Some(*same) == longest);
            let found = guess(&tokens, most);
            match best {
                None => prop_assert_eq!(found, [0; 0]),
                Some((_, place)) => {
                    let cycle = tokens[*place..].iter().cycle().take(most);
                    prop_assert_eq!(found, cycle.copied().collect::<Vec<_>>());
                }
            }
        }
    }
}
