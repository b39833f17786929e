//! What clients may take of the server beside the engine's queue. All limits are listed in docs/design/013.

use std::time::Duration;

/// File descriptors that are kept for everything but connections.
const OTHER_FILES: usize = 64 + super::places::RESERVE;

/// What clients may take of the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Connections at once; a few more are taken for probes and scrapes alone.
    pub connections: usize,
    /// A connection on which no whole request head comes for so long is closed, one that idles too.
    pub head: Duration,
    /// A body must have come whole in this time.
    pub body: Duration,
    /// A connection whose client takes nothing of what is sent for so long is closed, and its request cancelled.
    pub write: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            connections: 1024,
            // Longer than load balancers keep an idle connection (60 s, as a rule), so that they close it, not we.
            head: Duration::from_secs(75),
            body: Duration::from_secs(60),
            write: Duration::from_secs(60),
        }
    }
}

impl Limits {
    /// With as many connections as are asked for, or fewer where the process may not open so many files: else probes
    /// would be refused together with everybody.
    pub fn with_connections(wanted: usize, open_files: Option<usize>) -> Limits {
        let possible = open_files.map_or(wanted, |files| files.saturating_sub(OTHER_FILES).max(1));
        if possible < wanted {
            tracing::warn!(
                wanted,
                possible,
                "fewer connections are taken than allowed, because the process may not open more files; raise its limit"
            );
        }
        Limits { connections: wanted.min(possible), ..Limits::default() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_leave_files_for_others() {
        assert_eq!(Limits::with_connections(1024, None).connections, 1024);
        assert_eq!(Limits::with_connections(1024, Some(1 << 20)).connections, 1024);
        assert_eq!(Limits::with_connections(1024, Some(1024)).connections, 1024 - OTHER_FILES);
        assert_eq!(Limits::with_connections(1024, Some(10)).connections, 1);
    }
}
