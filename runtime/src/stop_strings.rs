//! Stop strings: the answer ends before the first of them, and no part of one is ever shown; or behind it, if asked for.

/// Longest stop string, bytes: what is held back stays small, and looking for it cheap.
pub const LONGEST: usize = 512;

/// Looks for stop strings in text that comes in pieces.
#[derive(Debug)]
pub struct StopStrings {
    stops: Vec<String>,
    /// The stop string itself is part of the answer.
    shown: bool,
    /// Text that is, or may become, the beginning of a stop string.
    held: String,
}

/// What a piece of text led to.
#[derive(Debug, PartialEq, Eq)]
pub struct Released {
    /// Text that no stop string can begin in.
    pub text: String,
    /// A stop string was found; `text` ends before it, or with it where stop strings are shown, and nothing follows.
    pub stopped: bool,
}

impl StopStrings {
    /// `stops` are not empty strings.
    pub fn new(stops: Vec<String>, shown: bool) -> Self {
        StopStrings { stops, shown, held: String::new() }
    }

    /// Adds a piece. Once `stopped`, no more may be added.
    pub fn push(&mut self, piece: &str) -> Released {
        self.held.push_str(piece);
        let found = self.stops.iter().filter_map(|stop| Some((self.held.find(stop.as_str())?, stop.len())));
        if let Some((start, length)) = found.min() {
            self.held.truncate(if self.shown { start + length } else { start });
            return Released { text: std::mem::take(&mut self.held), stopped: true };
        }
        let kept = self.held.split_off(self.first_possible_start());
        Released { text: std::mem::replace(&mut self.held, kept), stopped: false }
    }

    /// Nothing follows: what was held back is text after all.
    pub fn finish(&mut self) -> String {
        std::mem::take(&mut self.held)
    }

    /// The first place in `held` from which all that follows is the beginning of a stop string.
    fn first_possible_start(&self) -> usize {
        let longest = self.stops.iter().map(String::len).max().unwrap_or(0);
        let from = self.held.floor_char_boundary((self.held.len() + 1).saturating_sub(longest));
        let tails = self.held[from..].char_indices().map(|(at, _)| from + at);
        tails
            .into_iter()
            .find(|&start| self.stops.iter().any(|stop| stop.starts_with(&self.held[start..])))
            .unwrap_or(self.held.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(stops: &[&str], pieces: &[&str]) -> (String, bool) {
        let mut looking = StopStrings::new(stops.iter().map(ToString::to_string).collect(), false);
        let mut out = String::new();
        for piece in pieces {
            let released = looking.push(piece);
            out.push_str(&released.text);
            if released.stopped {
                return (out, true);
            }
        }
        (out + &looking.finish(), false)
    }

    #[test]
    fn a_stop_string_is_cut_however_it_is_split() {
        let text = "Hello world\n\nUser: more";
        for size in 1..text.len() {
            let pieces: Vec<String> =
                text.as_bytes().chunks(size).map(|c| String::from_utf8_lossy(c).into()).collect();
            let pieces: Vec<&str> = pieces.iter().map(String::as_str).collect();
            assert_eq!(run(&["\n\nUser:"], &pieces), ("Hello world".into(), true));
        }
    }

    #[test]
    fn nothing_of_a_stop_string_leaks_while_it_may_still_come() {
        let mut looking = StopStrings::new(vec!["STOP".into()], false);
        assert_eq!(looking.push("a ST").text, "a ");
        assert_eq!(looking.push("O").text, "");
        assert_eq!(looking.push("R").text, "STOR");
        assert_eq!(looking.push("S").text, "");
        assert_eq!(looking.finish(), "S");
    }

    #[test]
    fn a_stop_string_that_is_shown_ends_the_text() {
        let mut looking = StopStrings::new(vec!["ab".into(), "abc".into()], true);
        assert_eq!(looking.push("xa"), Released { text: "x".into(), stopped: false });
        assert_eq!(looking.push("bc"), Released { text: "ab".into(), stopped: true });
    }

    #[test]
    fn the_first_of_several_wins() {
        assert_eq!(run(&["b", "ab"], &["xxab"]), ("xx".into(), true));
        assert_eq!(run(&["aab"], &["aa", "ab"]), ("a".into(), true));
        assert_eq!(run(&["ü"], &["grün"]), ("gr".into(), true));
        assert_eq!(run(&[], &["any", "thing"]), ("anything".into(), false));
    }
}
