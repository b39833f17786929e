//! Stop strings of an answer that may hold tool calls: they are looked for in its text alone. A call's arguments may
//! hold anything, and a call that ends in the middle is of no use.

use crate::stop_strings::{Released, StopStrings};
use crate::tool_calls::{CallParser, CallReading, Said, Step};

/// Looks for stop strings outside of tool calls, in text that comes in pieces. What comes out is the whole text, calls
/// and their marks with it. A stop string does not reach over a call.
#[derive(Debug)]
pub struct ContentStops {
    stops: StopStrings,
    calls: Option<Calls>,
}

/// Tells calls from text.
#[derive(Debug)]
struct Calls {
    parser: Box<dyn CallParser>,
    /// Text of which it is not known yet whether it belongs to a call.
    held: String,
    /// Characters of the text before `held`.
    told: usize,
}

impl ContentStops {
    /// Looks for `stops`; calls may come in the form `calls`.
    pub fn new(stops: StopStrings, calls: Option<&CallReading>) -> ContentStops {
        let calls = calls.map(|calls| Calls { parser: calls.parser(), held: String::new(), told: 0 });
        ContentStops { stops, calls }
    }

    /// Adds a piece. Once `stopped`, no more may be added.
    pub fn push(&mut self, piece: &str) -> Released {
        let Some(calls) = &mut self.calls else { return self.stops.push(piece) };
        calls.held.push_str(piece);
        let steps = calls.parser.push(piece);
        release(&mut self.stops, calls, steps)
    }

    /// Nothing follows: gives out what was held back. In an answer that was `cut`, the beginning of a call is no text.
    pub fn finish(&mut self, cut: bool) -> Released {
        let mut released = Released { text: String::new(), stopped: false };
        if let Some(calls) = &mut self.calls {
            let steps = calls.parser.finish(cut);
            released = release(&mut self.stops, calls, steps);
        }
        if !released.stopped {
            released.text += &self.stops.finish();
            released.text += self.calls.as_mut().map_or("", |calls| &calls.held);
        }
        released
    }
}

fn release(stops: &mut StopStrings, calls: &mut Calls, steps: Vec<Step>) -> Released {
    let mut released = Released { text: String::new(), stopped: false };
    for Step { said, end } in steps {
        let stretch = calls.up_to(end);
        let text = if let Said::Text(text) | Said::Reasoning(text) = said { text } else { String::new() };
        // A closing mark may stand before the text.
        let call = stretch.strip_suffix(text.as_str()).unwrap_or_default();
        if !call.is_empty() {
            released.text += &stops.finish();
            released.text += call;
        }
        let found = stops.push(&text);
        released.text += &found.text;
        if found.stopped {
            released.stopped = true;
            break;
        }
    }
    released
}

impl Calls {
    /// Takes what is held up to this character of the text.
    fn up_to(&mut self, end: usize) -> String {
        let chars = end - self.told;
        self.told = end;
        let bytes = self.held.char_indices().nth(chars).map_or(self.held.len(), |(at, _)| at);
        let rest = self.held.split_off(bytes);
        std::mem::replace(&mut self.held, rest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tool_calls::ToolFormat;

    const CALL: &str = "<tool_call>\n{\"name\": \"f\", \"arguments\": {\"a\": \"ü END\"}}\n</tool_call>";

    /// What comes out of `text` in pieces of `size` characters, and whether it was stopped.
    fn run(text: &str, size: usize, cut: bool) -> (String, bool) {
        let stops = StopStrings::new(vec!["END".into(), "\n\n".into()], false);
        let calls = CallReading { format: ToolFormat::Hermes, tools: [].into() };
        let mut looking = ContentStops::new(stops, Some(&calls));
        let (chars, mut out): (Vec<char>, _) = (text.chars().collect(), String::new());
        for piece in chars.chunks(size) {
            let released = looking.push(&piece.iter().collect::<String>());
            out += &released.text;
            if released.stopped {
                return (out, true);
            }
        }
        let released = looking.finish(cut);
        (out + &released.text, released.stopped)
    }

    #[test]
    fn stop_strings_are_found_in_text_and_not_in_calls() {
        let cases = [
            (format!("Hm.\n\n{CALL}\n\n{CALL}"), format!("Hm.\n\n{CALL}\n\n{CALL}"), false),
            (format!("{CALL}\nü END{CALL}"), format!("{CALL}\nü "), true),
            (format!("a END{CALL}"), "a ".into(), true),
            (format!("E{CALL}ND"), format!("E{CALL}ND"), false),
            (format!("{CALL}\n E"), format!("{CALL}\n E"), false),
            ("<tool_call> no END".into(), "<tool_call> no ".into(), true),
            ("ü \n\n".into(), "ü ".into(), true),
        ];
        for (text, expected, stopped) in cases {
            for size in 1..=text.chars().count() {
                assert_eq!(run(&text, size, false), (expected.clone(), stopped), "pieces of {size}");
            }
        }
    }

    #[test]
    fn a_cut_in_a_call_is_no_stop() {
        for end in CALL.char_indices().map(|(at, _)| at) {
            let text = format!("a{}", &CALL[..end]);
            assert_eq!(run(&text, 3, true), (text, false));
        }
    }
}
