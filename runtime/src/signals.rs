//! SIGTERM and SIGINT as requests to end.

use crate::termination::failed;
use coterie_api::launch::Termination;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

/// What the process was asked to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Asked {
    /// Nothing yet: serve.
    Serve,
    /// Finish what runs, then end.
    Drain,
    /// End at once.
    EndNow,
}

/// Listens from now on: the first SIGTERM or SIGINT drains, a second SIGINT ends at once. A second SIGTERM changes
/// nothing: Kubernetes may send several, and the drain has its own deadline.
pub fn listen() -> Result<watch::Receiver<Asked>, Termination> {
    let no_signal = |error: std::io::Error| failed(format!("signals cannot be received: {error}"));
    let mut terminate = signal(SignalKind::terminate()).map_err(no_signal)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(no_signal)?;
    let (asked, receiver) = watch::channel(Asked::Serve);
    tokio::spawn(async move {
        let mut interrupts = 0;
        loop {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => interrupts += 1,
            }
            asked.send_replace(if interrupts > 1 { Asked::EndNow } else { Asked::Drain });
        }
    });
    Ok(receiver)
}
