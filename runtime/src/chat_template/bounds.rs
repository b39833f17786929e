//! What a template may cost. It is a program that came with a download, and it runs on text that came over the network.
//!
//! minijinja charges fuel for instructions and for data, 64 bytes a unit, and looks ahead before it allocates. What it
//! does not charge is bounded here: Python's string methods, nesting, the output. See docs/design/012.

use minijinja::value::{Value, ValueKind};
use minijinja::{Error, ErrorKind, State};
use std::io::{self, Write};
use std::thread;

/// One rendering: two million instructions, or 128 MB of text moved, or both in part. A long conversation takes a few
/// instructions a message and moves each text about five times.
pub(super) const FUEL: u64 = 2_000_000;
/// Bytes that a unit of fuel pays for, as in minijinja.
const BYTES_PER_FUEL: usize = 64;
/// How deep templates may nest.
pub(super) const RECURSION_LIMIT: usize = 100;
/// Larger templates are refused unread, bytes; real ones have 5 to 30 KB.
pub(super) const LARGEST_TEMPLATE: usize = 64 << 10;
/// Longer prompts are refused, bytes. A request's body is smaller.
const LONGEST_OUTPUT: usize = 16 << 20;
/// Values that a template nests, and chains of operators in its text, are walked and freed by recursion, which nothing
/// in minijinja bounds. This holds all that the fuel pays for; pages that are not touched cost nothing.
const STACK: usize = 256 << 20;
/// A number with more digits in a format string would be a width that allocates.
const FORMAT_DIGITS: usize = 4;

/// Runs `work` on a stack that is deep enough for it.
pub(super) fn on_a_deep_stack<T: Send>(work: impl FnOnce() -> Result<T, Error> + Send) -> Result<T, Error> {
    thread::scope(|scope| {
        let builder = thread::Builder::new().name("template".to_owned()).stack_size(STACK);
        let thread = builder
            .spawn_scoped(scope, work)
            .map_err(|error| refused(format!("no thread could be started for the template: {error}")))?;
        thread.join().unwrap_or_else(|_| Err(refused("the template made its engine panic")))
    })
}

/// Python's methods, paid for before they run: minijinja charges for their results only, and not for what they read.
pub(super) fn method(state: &mut State, value: &Value, name: &str, args: &[Value]) -> Result<Value, Error> {
    let text = value.as_str();
    let read = size(value) + args.iter().map(size).sum::<usize>();
    let made = match (name, text) {
        ("split" | "splitlines", Some(text)) => text.len().saturating_mul(size_of::<Value>()),
        ("replace", Some(text)) => replaced(text, args),
        ("format", Some(text)) if longest_number(text) > FORMAT_DIGITS => {
            return Err(refused(format!("a number in a format string has more than {FORMAT_DIGITS} digits")));
        }
        // The filter does the same, and charges for each item before it is copied.
        ("join", Some(_)) if args.len() == 1 => {
            return state.apply_filter("join", &[args[0].clone(), value.clone()]);
        }
        _ => 0,
    };
    pay(state, read.saturating_add(made))?;
    minijinja_contrib::pycompat::unknown_method_callback(state, value, name, args)
}

/// Takes the fuel for `bytes`.
pub(super) fn pay(state: &State, bytes: usize) -> Result<(), Error> {
    state.consume_fuel((bytes / BYTES_PER_FUEL) as u64)
}

/// Roughly what reading `value` once costs, bytes.
fn size(value: &Value) -> usize {
    match value.kind() {
        ValueKind::String => value.as_str().map_or(0, str::len),
        _ => value.len().unwrap_or(0).saturating_mul(size_of::<Value>()),
    }
}

/// The most bytes that `str.replace` may make.
fn replaced(text: &str, args: &[Value]) -> usize {
    let Some((old, new)) = args.first().and_then(Value::as_str).zip(args.get(1).and_then(Value::as_str))
    else {
        return 0;
    };
    text.len().saturating_add(text.matches(old).count().saturating_mul(new.len()))
}

fn longest_number(text: &str) -> usize {
    text.split(|c: char| !c.is_ascii_digit()).map(str::len).max().unwrap_or(0)
}

fn refused(why: impl Into<String>) -> Error {
    Error::new(ErrorKind::InvalidOperation, why.into())
}

/// Text that may not become longer than its limit.
pub(super) struct Bounded {
    bytes: Vec<u8>,
    limit: usize,
}

impl Bounded {
    pub(super) fn new(limit: usize) -> Bounded {
        Bounded { bytes: Vec::new(), limit }
    }

    /// For a prompt.
    pub(super) fn prompt() -> Bounded {
        Bounded::new(LONGEST_OUTPUT)
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    pub(super) fn into_text(self) -> Result<String, Error> {
        String::from_utf8(self.bytes).map_err(|_| refused("the template wrote text that is not UTF-8"))
    }
}

impl Write for Bounded {
    fn write(&mut self, more: &[u8]) -> io::Result<usize> {
        if self.bytes.len() + more.len() > self.limit {
            return Err(io::Error::other(format!("more than {} bytes were written", self.limit)));
        }
        self.bytes.extend_from_slice(more);
        Ok(more.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
