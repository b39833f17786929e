//! Damage to bytes: what a broken disk, a cut download or an ill-meaning hand does.

use super::random::Random;

/// Where numbers go wrong.
const EDGES: [u64; 12] = [
    0,
    1,
    0x7f,
    0xff,
    0x7fff,
    0xffff,
    0x7fff_ffff,
    0xffff_ffff,
    1 << 40,
    i64::MAX as u64,
    u64::MAX - 7,
    u64::MAX,
];
/// What text formats are made of.
const MARKS: [&str; 24] = [
    "{",
    "}",
    "[",
    "]",
    "\"",
    "\\",
    ",",
    ":",
    "null",
    "true",
    "1e999",
    "-1",
    "0",
    "18446744073709551616",
    "\u{0}",
    "\\u0000",
    "\\ud800",
    "\u{feff}",
    "𝄞",
    "\r\n",
    "{%",
    "%}",
    "{{",
    "}}",
];

/// `input` with one to eight changes.
pub fn damaged(random: &mut Random, mut input: Vec<u8>, seeds: &[Vec<u8>], words: &[&str]) -> Vec<u8> {
    for _ in 0..=random.length(7) {
        change(random, &mut input, seeds, words);
    }
    input
}

fn change(random: &mut Random, input: &mut Vec<u8>, seeds: &[Vec<u8>], words: &[&str]) {
    let at = random.below(input.len() + 1);
    let end = at + random.length(input.len() - at);
    match random.below(11) {
        0 if at < input.len() => input[at] ^= 1 << random.below(8),
        1 if at < input.len() => input[at] = random.next() as u8,
        2 => drop(input.drain(at..end)),
        3 => {
            let again = input[at..end].repeat(1 + random.length(3));
            insert(input, at, &again);
        }
        // Many times over: depth, and length.
        4 => {
            let short = end.min(at + 16);
            let again = input[at..short].repeat(random.length(20_000));
            insert(input, at, &again);
        }
        5 => overwrite(input, at, &random.one_of(&EDGES).to_le_bytes()),
        6 => overwrite(input, at, &(*random.one_of(&EDGES) as u32).to_le_bytes()),
        7 => {
            let word = if random.one_in(3) || words.is_empty() {
                random.one_of(&MARKS)
            } else {
                random.one_of(words)
            };
            insert(input, at, word.as_bytes());
        }
        8 => {
            let other = random.one_of(seeds);
            let from = random.below(other.len() + 1);
            let to = from + random.length(other.len() - from);
            drop(input.splice(at..end, other[from..to].iter().copied()));
        }
        9 => digits(random, input, at),
        _ if random.one_in(4) => input.truncate(at),
        _ => {}
    }
}

fn insert(input: &mut Vec<u8>, at: usize, bytes: &[u8]) {
    drop(input.splice(at..at, bytes.iter().copied()));
}

fn overwrite(input: &mut [u8], at: usize, bytes: &[u8]) {
    let end = input.len().min(at + bytes.len());
    input[at..end].copy_from_slice(&bytes[..end - at]);
}

/// Replaces the first decimal number after `at`.
fn digits(random: &mut Random, input: &mut Vec<u8>, at: usize) {
    let Some(start) = input[at..].iter().position(u8::is_ascii_digit).map(|offset| at + offset) else {
        return;
    };
    let length = input[start..].iter().take_while(|byte| byte.is_ascii_digit()).count();
    let number = random.one_of(&EDGES).to_string();
    drop(input.splice(start..start + length, number.into_bytes()));
}
