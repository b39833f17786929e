//! The header of a harmony message, `<|start|>assistant to=NAME<|channel|>NAME to=NAME <|constrain|>json<|message|>`, with
//! the end of the message before it. Role, channel and type may be missing, and the recipient stands in either place.

use super::harmony::{CALL, CHANNEL, CONSTRAIN, END, MESSAGE, RETURN, START};

/// Longest header, bytes; what is longer is none.
const LONGEST: usize = 400;
/// A recipient, before its name.
const RECIPIENT: &str = "to=";
/// Functions of the client, before their names.
const FUNCTIONS: &str = "functions.";

/// What a message is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Reasoning,
    Content,
    /// A call of this function.
    Call(String),
}

/// Reads what may be a header.
#[derive(Debug)]
pub(super) struct Header {
    text: String,
    part: Part,
    /// Where in `text` this part begins, and where what may be a mark behind it.
    from: usize,
    mark: Option<usize>,
    role: String,
    channel: String,
}

/// A part of a header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    /// Still in a message: only what may become a mark.
    Body,
    /// Behind a message's end.
    Ended,
    /// The role, of which the prompt has written the beginning.
    Answer,
    Role,
    Channel,
    Type,
}

/// What a character led to.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Read {
    /// It is not whole.
    More,
    /// A mark that ends a message is whole.
    Ended,
    /// The header is whole.
    Whole(Kind),
    /// It is no header. From this byte of its text on there may be another.
    Broken(usize),
}

impl Header {
    fn new(part: Part) -> Header {
        Header { text: String::new(), part, from: 0, mark: None, role: String::new(), channel: String::new() }
    }

    /// At the beginning of an answer.
    pub fn of_answer() -> Header {
        Header::new(Part::Answer)
    }

    /// In a message, before a character that begins marks.
    pub fn in_body() -> Header {
        Header::new(Part::Body)
    }

    /// All that was read.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// A message has ended, and nothing follows.
    pub fn is_end(&self) -> bool {
        self.part == Part::Ended && self.mark.is_none()
    }

    /// It is still a message's text, or may be.
    pub fn is_in_body(&self) -> bool {
        self.part == Part::Body
    }

    /// Takes the next character. Once whole or broken, no more may be added.
    pub fn push(&mut self, c: char) -> Read {
        self.text.push(c);
        let at = self.text.len() - c.len_utf8();
        if self.mark.is_none() && c == '<' {
            self.mark = Some(at);
        }
        let Some(mark) = self.mark else {
            return if self.may_hold() { Read::More } else { Read::Broken(at) };
        };
        let begun = &self.text[mark..];
        match self.marks().iter().find(|mark| mark.starts_with(begun)) {
            None if self.part == Part::Body => Read::Broken(1),
            None => Read::Broken(mark),
            Some(whole) if whole.len() > begun.len() => {
                if self.text.len() > LONGEST {
                    Read::Broken(mark)
                } else {
                    Read::More
                }
            }
            Some(whole) => self.after(whole, mark),
        }
    }

    /// The marks that may come behind this part.
    fn marks(&self) -> &'static [&'static str] {
        match self.part {
            Part::Body => &[END, RETURN, CALL, START],
            Part::Ended => &[START, CHANNEL],
            Part::Answer | Part::Role => &[CHANNEL, CONSTRAIN, MESSAGE],
            Part::Channel => &[CONSTRAIN, MESSAGE],
            Part::Type => &[MESSAGE],
        }
    }

    /// The text of this part may be what it is.
    fn may_hold(&self) -> bool {
        let part = &self.text[self.from..];
        let short = self.text.len() <= LONGEST;
        match self.part {
            Part::Body | Part::Ended => false,
            Part::Answer => {
                let recipient = part.strip_prefix(' ').unwrap_or("x");
                short && (recipient.starts_with(RECIPIENT) || RECIPIENT.starts_with(recipient))
            }
            Part::Role | Part::Channel | Part::Type => short,
        }
    }

    fn after(&mut self, whole: &str, mark: usize) -> Read {
        let part = self.text[self.from..mark].to_owned();
        match self.part {
            Part::Answer => self.role = format!("assistant{part}"),
            Part::Role => self.role = part,
            Part::Channel => self.channel = part,
            Part::Body | Part::Ended | Part::Type => {}
        }
        self.part = match whole {
            MESSAGE => return self.kind().map_or(Read::Broken(self.text.len()), Read::Whole),
            START => Part::Role,
            CHANNEL => Part::Channel,
            CONSTRAIN => Part::Type,
            _ => Part::Ended,
        };
        (self.from, self.mark) = (self.text.len(), None);
        if self.part == Part::Ended { Read::Ended } else { Read::More }
    }

    /// What the message is; none where somebody else than the assistant speaks.
    fn kind(&self) -> Option<Kind> {
        let mut role = self.role.split_whitespace();
        if role.next().is_some_and(|speaker| speaker != "assistant") {
            return None;
        }
        let mut channel = self.channel.split_whitespace();
        let thinks = channel.next() == Some("analysis");
        let recipient = role.chain(channel).find_map(|word| word.strip_prefix(RECIPIENT));
        let function =
            recipient.and_then(|name| name.strip_prefix(FUNCTIONS)).filter(|name| !name.is_empty());
        Some(match function {
            Some(name) => Kind::Call(name.to_owned()),
            None if thinks => Kind::Reasoning,
            None => Kind::Content,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(mut header: Header, text: &str) -> Vec<Read> {
        text.chars().map(|c| header.push(c)).filter(|read| *read != Read::More).collect()
    }

    #[test]
    fn a_header_tells_what_its_message_is() {
        let call = |name: &str| Read::Whole(Kind::Call(name.to_owned()));
        for (text, kind) in [
            ("<|channel|>analysis<|message|>", Read::Whole(Kind::Reasoning)),
            ("<|channel|>final<|message|>", Read::Whole(Kind::Content)),
            ("<|channel|>commentary<|message|>", Read::Whole(Kind::Content)),
            ("<|channel|>commentary to=functions.f <|constrain|>json<|message|>", call("f")),
            (" to=functions.f<|channel|>commentary json<|message|>", call("f")),
            ("<|channel|>analysis to=browser.search code<|message|>", Read::Whole(Kind::Reasoning)),
            ("<|message|>", Read::Whole(Kind::Content)),
        ] {
            assert_eq!(read(Header::of_answer(), text), [kind], "{text}");
        }
        let next = "<|end|><|start|>assistant<|channel|>final <|constrain|>json<|message|>";
        assert_eq!(read(Header::in_body(), next), [Read::Ended, Read::Whole(Kind::Content)]);
    }

    #[test]
    fn what_is_no_header_is_told_at_once() {
        let of_answer: fn() -> Header = Header::of_answer;
        for (header, text, from) in [
            (of_answer, "{", 0),
            (of_answer, " the", 2),
            (of_answer, "<|end", 0),
            (Header::in_body, "<|x", 1),
            (Header::in_body, "<|start|>user<|message|>", 24),
            (Header::in_body, "<|start|>assis<|start", 14),
        ] {
            assert_eq!(read(header(), text).first(), Some(&Read::Broken(from)), "{text}");
        }
        let long = format!("<|channel|>{}", "x".repeat(LONGEST));
        assert!(matches!(read(Header::of_answer(), &long)[..], [Read::Broken(_), ..]));
    }
}
