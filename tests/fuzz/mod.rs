//! Fuzzing on stable Rust: damaged inputs for whatever reads what comes from outside.
//!
//! Not guided by coverage but by outcomes: a target says what became of an input (the error's words, as a rule), and
//! an input with a new outcome becomes a seed of the next. A run is bounded by a count and repeats itself exactly;
//! `COTERIE_FUZZ_SECONDS` makes it as long as one likes, `COTERIE_FUZZ_SEED` another one.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // a fuzz target ends at the first surprise

mod bytes;
mod json;
mod memory;
mod random;

use random::Random;
use std::collections::HashSet;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Held by the target that runs, so that the memory is its own.
static TURN: Mutex<()> = Mutex::new(());

/// New seeds of one run at most.
const MOST_FOUND: usize = 2000;
/// A longer input does not become a seed: it would breed longer ones.
const LONGEST_SEED: usize = 16 << 10;
/// Longer inputs are cut: what breaks at this length breaks at any.
const LONGEST: usize = 64 << 10;
/// No input may take longer, on any machine.
const HANG: Duration = Duration::from_secs(60);
/// Between two lines of a long run.
const REPORT: Duration = Duration::from_secs(10);

/// What is attacked, and how.
pub struct Target {
    /// Names the folder of seeds.
    pub name: &'static str,
    /// Inputs of a short run.
    pub inputs: usize,
    /// Inputs are JSON: most are damaged as values, so that they still parse.
    pub json: bool,
    /// Text that inputs are likely to hold.
    pub words: &'static [&'static str],
    /// Makes a damaged input plausible again where the target would otherwise look no further.
    pub repair: fn(&mut Vec<u8>),
    /// Bytes that an input of this length may make the target hold at one time.
    pub memory: fn(usize) -> usize,
}

/// Damages seeds and gives them to `attack`, which says what became of each. A panic, a hang and too much memory fail.
pub fn run(target: &Target, mut attack: impl FnMut(&[u8]) -> String) {
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let seconds: Option<u64> = number("COTERIE_FUZZ_SECONDS");
    let mut random = Random::new(number("COTERIE_FUZZ_SEED").unwrap_or(1));
    let mut seeds = seeds(target.name);
    let committed = seeds.len();
    let mut seen = HashSet::new();
    let started = Instant::now();
    let mut reported = started;
    let (mut slowest, mut largest) = (Duration::ZERO, 0);
    let mut tried = 0;
    loop {
        let done = match seconds {
            Some(seconds) => started.elapsed().as_secs() >= seconds,
            None => tried >= target.inputs,
        };
        if done && tried >= committed {
            break;
        }
        // First the seeds as they are: some were failures once.
        let input =
            if tried < committed { seeds[tried].clone() } else { damaged(&mut random, &seeds, target) };
        tried += 1;
        if seconds.is_some() {
            // What aborts the process leaves nothing else behind.
            put(&place(target, "last"), &input);
        }
        let begun = Instant::now();
        let (outcome, taken) = memory::taken_by(|| catch_unwind(AssertUnwindSafe(|| attack(&input))));
        let outcome = outcome.unwrap_or_else(|panic| {
            eprintln!("{}", kept(target, &input));
            resume_unwind(panic)
        });
        let took = begun.elapsed();
        if took > slowest && seconds.is_some() {
            put(&place(target, "slowest"), &input);
        }
        (slowest, largest) = (slowest.max(took), largest.max(taken));
        assert!(took < HANG, "it took {took:?}; {}", kept(target, &input));
        let most = (target.memory)(input.len());
        assert!(
            taken <= most,
            "{} bytes of input took {taken} bytes of memory, more than {most}; {}",
            input.len(),
            kept(target, &input)
        );
        let new = seen.insert(in_kind(&outcome)) && tried > committed;
        if new && input.len() < LONGEST_SEED && seeds.len() < committed + MOST_FOUND {
            seeds.push(input);
        }
        if seconds.is_some() && reported.elapsed() > REPORT {
            reported = Instant::now();
            eprintln!(
                "{}: {tried} inputs, {} outcomes, slowest {slowest:?}, largest {largest} bytes",
                target.name,
                seen.len()
            );
        }
    }
    println!(
        "{}: {tried} inputs in {:.1?}, {} outcomes, slowest {slowest:?}, largest {largest} bytes",
        target.name,
        started.elapsed(),
        seen.len()
    );
}

/// A seed with one to eight changes.
fn damaged(random: &mut Random, seeds: &[Vec<u8>], target: &Target) -> Vec<u8> {
    let seed = random.one_of(seeds);
    let value = (target.json && !random.one_in(4)).then(|| serde_json::from_slice(seed).ok()).flatten();
    let mut input = match value {
        Some(value) => {
            let others = |random: &mut Random| serde_json::from_slice(random.one_of::<Vec<u8>>(seeds)).ok();
            json::damaged(random, value, target.words, others).to_string().into_bytes()
        }
        None => bytes::damaged(random, seed.clone(), seeds, target.words),
    };
    input.truncate(LONGEST);
    if !random.one_in(8) {
        (target.repair)(&mut input);
    }
    input
}

/// The outcome without what differs from input to input: numbers and quoted text.
fn in_kind(outcome: &str) -> String {
    let outside = outcome.split(['"', '\'', '`']).step_by(2);
    outside.flat_map(str::chars).filter(|c| !c.is_ascii_digit()).take(200).collect()
}

fn seeds(name: &str) -> Vec<Vec<u8>> {
    let folder = Path::new(file!()).parent().unwrap().join("seeds").join(name);
    // Tests run in the folder of their crate, and `file!` counts from the workspace's.
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().find(|root| root.join(&folder).is_dir());
    let folder = root.unwrap_or_else(|| panic!("no folder {}", folder.display())).join(folder);
    let mut paths: Vec<PathBuf> =
        std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    assert!(!paths.is_empty(), "{} holds no seed", folder.display());
    paths.iter().map(|path| std::fs::read(path).unwrap()).collect()
}

/// Keeps the input that failed, and says where.
fn kept(target: &Target, input: &[u8]) -> String {
    let path = place(target, "failed");
    put(&path, input);
    format!(
        "the input is in {}; once it is mended, keep it in tests/fuzz/seeds/{}",
        path.display(),
        target.name
    )
}

/// Writes a file of a folder that is read from anew. One that is there is removed first: disks take their time over a
/// file that is overwritten.
pub fn put(path: &Path, contents: &[u8]) {
    let _ = std::fs::remove_file(path);
    std::fs::write(path, contents).unwrap();
}

fn place(target: &Target, kind: &str) -> PathBuf {
    std::env::temp_dir().join(format!("coterie-fuzz-{}.{kind}", target.name))
}

fn number(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{variable} is {text:?}; it must be a number")))
}
