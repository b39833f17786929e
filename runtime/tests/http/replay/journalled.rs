//! A journalled stream as the front door reads it.

use coterie_api::replay::{COMMENT, Entry, Journal};

/// Events with the entry that followed them, and what no entry followed.
pub struct Journalled {
    pub steps: Vec<(Vec<String>, Entry)>,
    pub tail: Vec<String>,
}

impl Journalled {
    pub fn read(body: &str) -> Journalled {
        let (mut steps, mut tail) = (Vec::new(), Vec::new());
        for block in body.split_inclusive("\n\n") {
            match block.strip_prefix(COMMENT) {
                Some(entry) if block.ends_with("\n\n") => {
                    steps.push((std::mem::take(&mut tail), serde_json::from_str(entry.trim_end()).unwrap()));
                }
                _ => tail.push(block.to_owned()),
            }
        }
        Journalled { steps, tail }
    }

    /// What the entries of `steps` come to; the first is the beginning.
    pub fn journal(steps: &[(Vec<String>, Entry)]) -> Journal {
        let Entry::Begun(begun) = &steps[0].1 else { panic!("it does not begin") };
        let mut journal = Journal::new(begun.clone());
        for (_, entry) in &steps[1..] {
            if let Entry::Tokens { choice, tokens, cached, .. } = entry {
                journal.take(*choice, tokens, *cached);
            }
        }
        journal
    }

    /// Every event of `steps`.
    pub fn events(steps: &[(Vec<String>, Entry)]) -> Vec<String> {
        steps.iter().flat_map(|(events, _)| events.clone()).collect()
    }
}
