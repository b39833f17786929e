//! Reasoning: what a model writes between `<think>` and `</think>` before it answers.
//!
//! Qwen3, DeepSeek-R1, MiniMax-M1 and M2, and GLM-4.5 write it so, at the beginning of an answer and nowhere else: the
//! tag further on is text, in an answer about the tag for instance. Where a template opens the tag at the prompt's end,
//! the answer begins inside. GPT-OSS has channels for it (`tool_calls::harmony`).

use crate::tag_finder::TagFinder;

/// Before the reasoning.
pub const OPEN: &str = "<think>";
/// After the reasoning.
pub const CLOSE: &str = "</think>";
/// Both.
pub const TAGS: [&str; 2] = [OPEN, CLOSE];

/// Tells reasoning from answer in text that comes in pieces. Whitespace around the tags belongs to neither.
#[derive(Debug)]
pub struct ReasoningSplitter {
    place: Place,
    /// Characters of the text that were looked at.
    seen: usize,
}

#[derive(Debug)]
enum Place {
    /// Nothing came yet but this.
    Before {
        space: String,
        /// What may become the tag.
        begun: String,
    },
    /// After the tag, before the reasoning's first word.
    Leading,
    Inside(TagFinder),
    /// After the closing tag, before the answer's first word.
    After,
    Answer,
}

/// A part of the text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stretch {
    /// It is reasoning, and not the answer.
    pub reasoning: bool,
    /// Its text; never empty.
    pub text: String,
    /// It reaches to this character of the text.
    pub end: usize,
}

impl ReasoningSplitter {
    /// For a text that may begin with reasoning.
    pub fn new() -> ReasoningSplitter {
        ReasoningSplitter { place: Place::Before { space: String::new(), begun: String::new() }, seen: 0 }
    }

    /// For a text whose opening tag stands before it.
    pub fn inside() -> ReasoningSplitter {
        ReasoningSplitter { place: Place::Leading, seen: 0 }
    }

    /// For a text that is all answer.
    pub fn off() -> ReasoningSplitter {
        ReasoningSplitter { place: Place::Answer, seen: 0 }
    }

    /// What comes now is reasoning, as far as can be told.
    pub fn is_inside(&self) -> bool {
        matches!(self.place, Place::Leading | Place::Inside(_))
    }

    /// Adds a piece.
    pub fn push(&mut self, piece: &str) -> Vec<Stretch> {
        let mut stretches = Vec::new();
        let mut rest = piece;
        while !rest.is_empty() {
            let before = rest;
            let (out, next) = self.step(&mut rest);
            self.seen += before[..before.len() - rest.len()].chars().count();
            if !out.is_empty() {
                let held = if let Place::Inside(finder) = &self.place { finder.held() } else { 0 };
                let reasoning = self.is_inside();
                stretches.push(Stretch { reasoning, text: out, end: self.seen - held });
            }
            if let Some(next) = next {
                self.place = next;
            }
        }
        stretches
    }

    /// Nothing follows: gives out what was held back, unless it is whitespace at the end of the reasoning.
    pub fn finish(&mut self) -> Option<Stretch> {
        let (reasoning, text) = match &mut self.place {
            Place::Before { space, begun } => (false, std::mem::take(space) + begun),
            Place::Inside(finder) => (true, finder.finish()),
            Place::Leading | Place::After | Place::Answer => return None,
        };
        let shown = if reasoning { !text.trim().is_empty() } else { !text.is_empty() };
        shown.then_some(Stretch { reasoning, text, end: self.seen })
    }

    /// Takes what is of one kind from the front of `rest`; gives what comes out, and where the text is after it.
    fn step(&mut self, rest: &mut &str) -> (String, Option<Place>) {
        let piece = *rest;
        *rest = "";
        match &mut self.place {
            Place::Answer => (piece.to_owned(), None),
            Place::Before { space, begun } => {
                let word = if begun.is_empty() { piece.trim_start() } else { piece };
                space.push_str(&piece[..piece.len() - word.len()]);
                begun.push_str(word);
                if begun.len() < OPEN.len() && OPEN.starts_with(begun.as_str()) {
                    return (String::new(), None);
                }
                match begun.strip_prefix(OPEN) {
                    Some(after) => {
                        *rest = &piece[piece.len() - after.len()..];
                        (String::new(), Some(Place::Leading))
                    }
                    None => (std::mem::take(space) + begun, Some(Place::Answer)),
                }
            }
            Place::Leading | Place::After => {
                *rest = piece.trim_start();
                let next = match self.place {
                    Place::Leading => Place::Inside(TagFinder::new(CLOSE)),
                    _ => Place::Answer,
                };
                (String::new(), (!rest.is_empty()).then_some(next))
            }
            Place::Inside(finder) => {
                let sought = finder.push(piece);
                let next = sought.found.map(|(_, after)| {
                    *rest = after;
                    Place::After
                });
                (sought.before, next)
            }
        }
    }
}

/// The answer to `prompt` begins inside: the template has written the opening tag.
pub fn begins_inside(prompt: &str) -> bool {
    prompt.trim_end().ends_with(OPEN)
}

impl Default for ReasoningSplitter {
    fn default() -> Self {
        ReasoningSplitter::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Reasoning and answer, of the text in pieces of `size` characters.
    fn split(mut splitter: ReasoningSplitter, text: &str, size: usize) -> (String, String) {
        let chars: Vec<char> = text.chars().collect();
        let mut stretches: Vec<Stretch> = Vec::new();
        for piece in chars.chunks(size) {
            stretches.extend(splitter.push(&piece.iter().collect::<String>()));
        }
        stretches.extend(splitter.finish());
        assert!(stretches.is_sorted_by_key(|stretch| stretch.end));
        assert!(stretches.last().is_none_or(|last| last.end <= chars.len()));
        let of = |reasoning| {
            let those = stretches.iter().filter(|stretch| stretch.reasoning == reasoning);
            those.map(|stretch| stretch.text.as_str()).collect::<String>()
        };
        (of(true), of(false))
    }

    #[test]
    fn reasoning_is_split_from_the_answer_wherever_the_pieces_end() {
        let fresh = ReasoningSplitter::new;
        let inside = ReasoningSplitter::inside;
        let cases: [(&dyn Fn() -> ReasoningSplitter, &str, &str, &str); 10] = [
            (&fresh, "<think>\nWhy, ü?\n\nSo.\n</think>\n\nBecause. ", "Why, ü?\n\nSo.", "Because. "),
            (&fresh, "\n <think></think>Hi", "", "Hi"),
            (&fresh, "<think>\n\n</think>\n\n", "", ""),
            (&fresh, "Hello <think>no</think>", "", "Hello <think>no</think>"),
            (&fresh, "<thin ice", "", "<thin ice"),
            (&fresh, " \n", "", " \n"),
            (&fresh, "<th", "", "<th"),
            (&fresh, "<think>a</thin</think>b <think>c", "a</thin", "b <think>c"),
            (&inside, "Hm </think> ok", "Hm", "ok"),
            (&inside, "cut short </thi", "cut short </thi", ""),
        ];
        for (splitter, text, reasoning, answer) in cases {
            for size in 1..=text.chars().count() {
                let found = split(splitter(), text, size);
                assert_eq!(found, (reasoning.into(), answer.into()), "{text:?} in pieces of {size}");
            }
        }
    }

    #[test]
    fn a_prompt_may_open_the_reasoning() {
        assert!(begins_inside("<|assistant|>\n<think>\n"));
        assert!(!begins_inside("<|assistant|>\n<think>\n\n</think>\n\n"));
        assert!(!begins_inside("<|assistant|>\n"));
    }

    #[test]
    fn without_reasoning_all_is_answer() {
        let text = "<think>a</think>";
        assert_eq!(split(ReasoningSplitter::off(), text, 3), (String::new(), text.into()));
    }

    #[test]
    fn it_is_known_when_the_reasoning_goes_on() {
        let mut splitter = ReasoningSplitter::new();
        assert!(!splitter.is_inside());
        splitter.push("<think>");
        assert!(splitter.is_inside());
        splitter.push("a</thin");
        assert!(splitter.is_inside());
        splitter.push("k>");
        assert!(!splitter.is_inside());
    }
}
