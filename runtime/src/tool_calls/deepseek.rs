//! DeepSeek: `<｜tool▁calls▁begin｜>`, one or several calls, `<｜tool▁calls▁end｜>`.
//!
//! V3 and R1 write a call as `<｜tool▁call▁begin｜>function<｜tool▁sep｜>NAME`, and on new lines the arguments as a code
//! block of JSON before `<｜tool▁call▁end｜>`; V3.1 as `<｜tool▁call▁begin｜>NAME<｜tool▁sep｜>{…}<｜tool▁call▁end｜>`. Read are
//! both, whatever the model.
//!
//! Sources: the chat templates of DeepSeek-V3-0324, DeepSeek-R1 and DeepSeek-V3.1, and the model card of the last for
//! how its tools are told; vLLM's `examples/tool_chat_template_deepseek{v3,r1,v31}.jinja`.

use super::Signs;
use super::json_scanner::{Broken, JsonScanner};
use super::marks::{MarkReader, NameReader};
use super::tagged::{Place, Section, Told};

pub(super) const OPEN: &str = "<｜tool▁calls▁begin｜>";
pub(super) const CLOSE: &str = "<｜tool▁calls▁end｜>";
pub(super) const CALL: &str = "<｜tool▁call▁begin｜>";
pub(super) const SEPARATOR: &str = "<｜tool▁sep｜>";
pub(super) const CALL_END: &str = "<｜tool▁call▁end｜>";
pub(super) const MARKS: [&str; 5] = [OPEN, CLOSE, CALL, SEPARATOR, CALL_END];

/// Before and after the arguments, in V3 and R1.
pub(super) const FENCE: &str = "```json";
pub(super) const FENCE_END: &str = "```";

pub(super) const V3_IN_TEMPLATE: Signs = Signs { present: &[OPEN, CALL, SEPARATOR, FENCE], absent: &[] };
pub(super) const V31_IN_TEMPLATE: Signs = Signs { present: &[OPEN, CALL, SEPARATOR], absent: &[FENCE] };

/// How tools are told where the template does not: V3.1's words, and V3's form of a call for the others.
pub(super) fn instructions(signatures: &str, fenced: bool) -> String {
    let call = if fenced {
        format!(
            "{CALL}function{SEPARATOR}tool_call_name\n{FENCE}\ntool_call_arguments\n{FENCE_END}{CALL_END}"
        )
    } else {
        format!("{CALL}tool_call_name{SEPARATOR}tool_call_arguments{CALL_END}")
    };
    let chain = if fenced { "on a new line each" } else { "without anything between them" };
    format!(
        "## Tools\nYou have access to the following tools:\n{signatures}\n\nIMPORTANT: ALWAYS adhere to this exact \
        format for tool use:\n{OPEN}{call}{{additional_tool_calls}}{CLOSE}\n\nWhere:\n- `tool_call_name` must be an \
        exact match to one of the available tools\n- `tool_call_arguments` must be valid JSON that strictly follows \
        the tool's Parameters Schema\n- For multiple tool calls, chain them {chain}"
    )
}

/// Reads the calls behind [`OPEN`].
#[derive(Clone, Debug)]
pub(super) enum DeepSeekCalls {
    /// Expects a call or, `after` one, the end.
    Mark {
        reader: MarkReader,
        after: bool,
    },
    /// Before the separator: the name, or in V3 the kind of tool.
    Head(NameReader),
    /// Behind the separator: V3.1's arguments, or V3's name.
    Separated {
        head: String,
    },
    /// V3's name, up to the end of its line.
    Name(NameReader),
    /// Before the arguments, with so many bytes of V3's fence.
    Fence {
        name: String,
        matched: usize,
    },
    Arguments(JsonScanner),
    /// Expects V3's second fence, or the end of the call.
    Closing {
        reader: MarkReader,
        fenced: bool,
    },
    Ended,
}

impl DeepSeekCalls {
    pub fn new() -> DeepSeekCalls {
        DeepSeekCalls::Mark { reader: MarkReader::default(), after: false }
    }

    fn begin(&mut self, name: String) -> Result<Told, Broken> {
        let mut scanner = JsonScanner::default();
        scanner.push('{')?;
        *self = DeepSeekCalls::Arguments(scanner);
        Ok(Told::Begins { name, arguments: "{".to_owned() })
    }

    /// What follows what was read, if the place changes.
    fn next(&mut self, c: char) -> Result<Option<DeepSeekCalls>, Broken> {
        use DeepSeekCalls::{Arguments, Closing, Ended, Fence, Head, Mark, Name, Separated};
        Ok(match self {
            Mark { reader, after } => {
                let marks = if *after { &[CALL, CLOSE][..] } else { &[CALL] };
                let ends = |mark| if mark == 0 { Head(NameReader::default()) } else { Ended };
                reader.push(c, marks)?.map(ends)
            }
            Head(reader) => reader.push(c, SEPARATOR)?.map(|head| Separated { head }),
            Separated { .. } if c.is_ascii_whitespace() => None,
            // V3.1's name, and V3's fence behind it.
            Separated { head } if FENCE.starts_with(c) => {
                Some(Fence { name: std::mem::take(head), matched: c.len_utf8() })
            }
            Separated { .. } => {
                let mut reader = NameReader::default();
                reader.push(c, "\n")?;
                Some(Name(reader))
            }
            Name(reader) => reader.push(c, "\n")?.map(|name| Fence { name, matched: 0 }),
            Fence { matched, .. } if FENCE[*matched..].starts_with(c) => {
                *matched += 1;
                None
            }
            Fence { matched, .. }
                if c.is_ascii_whitespace() && (*matched == 0 || *matched == FENCE.len()) =>
            {
                None
            }
            Closing { reader, fenced } => {
                let marks = if *fenced { &[CALL_END][..] } else { &[CALL_END, FENCE_END] };
                let next = |mark| match mark {
                    0 => Mark { reader: MarkReader::default(), after: true },
                    _ => Closing { reader: MarkReader::default(), fenced: true },
                };
                reader.push(c, marks)?.map(next)
            }
            Fence { .. } | Arguments(_) | Ended => return Err(Broken),
        })
    }
}

impl Section for DeepSeekCalls {
    fn push(&mut self, c: char) -> Result<Told, Broken> {
        match self {
            DeepSeekCalls::Separated { head } if c == '{' => {
                let name = std::mem::take(head);
                return self.begin(name);
            }
            DeepSeekCalls::Fence { name, matched }
                if c == '{' && (*matched == 0 || *matched == FENCE.len()) =>
            {
                let name = std::mem::take(name);
                return self.begin(name);
            }
            DeepSeekCalls::Arguments(scanner) => {
                scanner.push(c)?;
                if scanner.is_ended() {
                    *self = DeepSeekCalls::Closing { reader: MarkReader::default(), fenced: false };
                }
                return Ok(Told::Argument);
            }
            _ => {}
        }
        if let Some(next) = self.next(c)? {
            *self = next;
        }
        Ok(Told::Nothing)
    }

    fn place(&self) -> Place {
        match self {
            DeepSeekCalls::Arguments(_) => Place::Within,
            DeepSeekCalls::Closing { .. } => Place::Closing,
            DeepSeekCalls::Mark { after: true, .. } => Place::After,
            DeepSeekCalls::Ended => Place::Ended,
            _ => Place::Before,
        }
    }
}
