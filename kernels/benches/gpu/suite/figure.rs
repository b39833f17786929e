//! One measured figure, and its line of JSON.

use std::fmt::Write as _;

use coterie_kernels::cuda::timed::Time;

/// What was measured. What has the same first four fields may be compared, whoever measured it.
#[derive(Clone, Debug, PartialEq)]
pub struct Figure {
    /// What is computed.
    pub op: &'static str,
    /// The model or the sizes.
    pub of: String,
    /// What weights or caches are kept in.
    pub format: String,
    /// Rows: tokens, or sequences of a decode.
    pub rows: usize,
    pub time: Time,
    /// Bytes that must be read and written, counted from the sizes.
    pub bytes: usize,
    /// Additions and multiplications, counted from the sizes.
    pub flop: usize,
    /// How far the results are from a reference, if they are numbers; every figure's were compared.
    pub error: Option<f64>,
    /// What is to be known beside.
    pub note: String,
}

impl Figure {
    /// An object on one line.
    pub fn json(&self) -> String {
        let Figure { op, of, format, rows, time, bytes, flop, error, note } = self;
        let mut line = format!(
            r#"{{"by":"coterie","op":{},"of":{},"format":{},"rows":{rows},"seconds":{:e},"noise":{:.4},"bytes":{bytes},"flop":{flop}"#,
            quoted(op),
            quoted(of),
            quoted(format),
            time.seconds,
            time.noise,
        );
        if let Some(error) = error {
            let _ = write!(line, r#","error":{error:e}"#);
        }
        if !note.is_empty() {
            let _ = write!(line, r#","note":{}"#, quoted(note));
        }
        line + "}"
    }
}

/// A string of JSON.
pub fn quoted(text: &str) -> String {
    let mut out = String::from('"');
    for c in text.chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            c if c < ' ' => _ = write!(out, "\\u{:04x}", c as u32),
            c => out.push(c),
        }
    }
    out + "\""
}
