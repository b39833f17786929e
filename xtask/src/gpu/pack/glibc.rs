//! Which C library a program needs, so that a pack says on which machines it starts.

use std::fmt;

/// glibc's version: major, minor.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version(u32, u32);

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.0, self.1)
    }
}

/// The newest version that a symbol of the program is bound to, by the names of versions in it.
pub fn needed(program: &[u8]) -> Version {
    const MARK: &[u8] = b"GLIBC_";
    let places = program.windows(MARK.len()).enumerate().filter(|(_, bytes)| *bytes == MARK);
    places.filter_map(|(at, _)| version(&program[at + MARK.len()..])).max().unwrap_or_default()
}

/// `2.34` and a zero byte, as string tables have it.
fn version(bytes: &[u8]) -> Option<Version> {
    let end = bytes.iter().take(12).position(|byte| *byte == 0)?;
    let (major, minor) = std::str::from_utf8(&bytes[..end]).ok()?.split_once('.')?;
    Some(Version(major.parse().ok()?, minor.split('.').next()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_version_counts() {
        let program = b"\x7fELF\0GLIBC_2.2.5\0GLIBC_2.34\0GLIBC_2.9\0GLIBC_PRIVATE\0GLIBC_2.99 in a sentence";
        assert_eq!(needed(program).to_string(), "2.34");
        assert_eq!(needed(b"static"), Version::default());
    }
}
