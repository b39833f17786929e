//! What a process and its renderer say to each other, over the one socket that they share. Both are of one build.

use std::io::{self, Read, Write};

/// No question and no answer is longer, bytes: a request's body, and a prompt, are shorter.
const LONGEST: usize = 64 << 20;

/// What a renderer answers to a template, and then to each conversation's variables.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Answer {
    /// The prompt (nothing, for a template), or why there is none.
    pub rendered: Result<String, String>,
    /// It has grown so large that it ends now.
    pub last: bool,
}

pub(super) fn write_question(to: &mut impl Write, bytes: &[u8]) -> io::Result<()> {
    write_bytes(to, bytes)
}

/// None where nobody asks any more.
pub(super) fn read_question(from: &mut impl Read) -> io::Result<Option<Vec<u8>>> {
    match read_bytes(from) {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(None),
        read => read.map(Some),
    }
}

impl Answer {
    pub(super) fn write(&self, to: &mut impl Write) -> io::Result<()> {
        to.write_all(&[u8::from(self.rendered.is_ok()), u8::from(self.last)])?;
        let (Ok(text) | Err(text)) = &self.rendered;
        write_bytes(to, text.as_bytes())
    }

    pub(super) fn read(from: &mut impl Read) -> io::Result<Answer> {
        let mut flags = [0; 2];
        from.read_exact(&mut flags)?;
        let text = String::from_utf8(read_bytes(from)?).map_err(io::Error::other)?;
        Ok(Answer { rendered: if flags[0] == 1 { Ok(text) } else { Err(text) }, last: flags[1] == 1 })
    }
}

fn write_bytes(to: &mut impl Write, bytes: &[u8]) -> io::Result<()> {
    to.write_all(&(bytes.len() as u64).to_le_bytes())?;
    to.write_all(bytes)
}

fn read_bytes(from: &mut impl Read) -> io::Result<Vec<u8>> {
    let mut length = [0; 8];
    from.read_exact(&mut length)?;
    let length = u64::from_le_bytes(length);
    if length > LONGEST as u64 {
        return Err(io::Error::other(format!("{length} bytes were announced, and {LONGEST} are allowed")));
    }
    let mut bytes = vec![0; length as usize];
    from.read_exact(&mut bytes)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_and_questions_read_back() {
        let mut bytes = Vec::new();
        write_question(&mut bytes, b"{}").unwrap();
        assert_eq!(read_question(&mut bytes.as_slice()).unwrap().unwrap(), b"{}");
        assert_eq!(read_question(&mut [].as_slice()).unwrap(), None);
        for answer in [
            Answer { rendered: Ok("ü".into()), last: false },
            Answer { rendered: Err(String::new()), last: true },
        ] {
            let mut bytes = Vec::new();
            answer.write(&mut bytes).unwrap();
            assert_eq!(Answer::read(&mut bytes.as_slice()).unwrap(), answer);
        }
    }

    #[test]
    fn a_length_beyond_all_bounds_is_not_allocated() {
        assert!(read_question(&mut u64::MAX.to_le_bytes().as_slice()).is_err());
    }
}
