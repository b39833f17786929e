//! How a failed process says why: one sentence on stderr, the same in the container's termination message, and an
//! exit code.

use coterie_api::launch::{TERMINATION_MESSAGE_LIMIT, Termination, TerminationReason};
use coterie_engine::LoadError;
use serde::Serialize;
use std::fs::OpenOptions;
use std::io::Write;
use std::path::Path;
use std::process::ExitCode;

/// The system failed us.
pub fn failed(message: impl Into<String>) -> Termination {
    Termination { reason: TerminationReason::Failed, message: message.into() }
}

/// The model folder is unusable as it is.
pub fn model_rejected(message: impl Into<String>) -> Termination {
    Termination { reason: TerminationReason::ModelRejected, message: message.into() }
}

/// The engine did not take the model or what was asked of it.
pub fn not_loaded(error: LoadError) -> Termination {
    Termination { reason: error.reason(), message: error.to_string() }
}

/// 2 where a person must change the model or the launch, 1 where trying again may help.
pub fn exit_code(reason: TerminationReason) -> u8 {
    match reason {
        TerminationReason::ModelRejected | TerminationReason::LaunchRejected => 2,
        TerminationReason::DeviceUnusable | TerminationReason::Failed => 1,
    }
}

/// Writes `failure` to stderr and, if it is there, to the file `log`.
pub fn report(failure: &Termination, log: &Path) -> ExitCode {
    eprintln!("coterie: {}", failure.message);
    if let Err(error) = write_message(&fitting(failure), log) {
        eprintln!("coterie: the termination message could not be written to {}: {error}", log.display());
    }
    ExitCode::from(exit_code(failure.reason))
}

/// Writes `message` as JSON to `log` if that file is already there, as Kubernetes makes it.
pub fn write_message(message: &impl Serialize, log: &Path) -> std::io::Result<()> {
    let json = serde_json::to_vec(message)?;
    match OpenOptions::new().write(true).truncate(true).open(log) {
        Ok(mut file) => file.write_all(&json),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
}

/// `failure` with as much of its message as Kubernetes keeps. Escapes make JSON longer than its text, so the length
/// is found by trying.
fn fitting(failure: &Termination) -> Termination {
    let cut_to = |bytes: usize| {
        let text = &failure.message[..failure.message.floor_char_boundary(bytes)];
        Termination { reason: failure.reason, message: format!("{text}…") }
    };
    let fits = |failure: &Termination| {
        serde_json::to_vec(failure).is_ok_and(|json| json.len() <= TERMINATION_MESSAGE_LIMIT)
    };
    if fits(failure) {
        return failure.clone();
    }
    let (mut most, mut too_much) = (0, failure.message.len());
    while most + 1 < too_much {
        let middle = most.midpoint(too_much);
        if fits(&cut_to(middle)) { most = middle } else { too_much = middle }
    }
    cut_to(most)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_message_is_cut_to_what_kubernetes_keeps() {
        for text in ["x".repeat(10_000), "\u{1}".repeat(5_000), "ü\"".repeat(3_000)] {
            let cut = fitting(&model_rejected(text.clone()));
            let written = serde_json::to_vec(&cut).unwrap().len();
            assert!(
                (TERMINATION_MESSAGE_LIMIT - 8..=TERMINATION_MESSAGE_LIMIT).contains(&written),
                "{written}"
            );
            assert!(text.starts_with(cut.message.strip_suffix('…').unwrap()));
        }
        assert_eq!(fitting(&failed("short")), failed("short"));
    }

    #[test]
    fn the_message_goes_into_the_file_only_if_it_is_there() {
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join("termination-log");
        assert_eq!(report(&failed("the port is taken"), &log), ExitCode::from(1));
        assert!(!log.exists());
        std::fs::write(&log, "left from before, and longer than what comes now; it must all be gone")
            .unwrap();
        assert_eq!(report(&model_rejected("no config.json"), &log), ExitCode::from(2));
        let read: Termination = serde_json::from_slice(&std::fs::read(&log).unwrap()).unwrap();
        assert_eq!(read, model_rejected("no config.json"));
    }
}
