//! Why the operator, or one reconcile of it, could not go on.
//!
//! A cause is part of the sentence, down to its first cause. So it is no `source`: who prints the chain of an error
//! would say it twice.

/// One variant per thing that was tried; its name is the metric's label.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The API server did not answer a create or an apply, or not as it should.
    #[error("{object} could not be written: {}; it is tried again", words(cause))]
    Apply {
        /// Kind and name.
        object: String,
        /// What went wrong.
        cause: Box<kube::Error>,
    },
    /// The certificates of the exchange could not be made or written.
    #[error("Secret {name} could not be changed: {cause}; it is tried again")]
    Certificates {
        /// The Secret.
        name: String,
        /// What went wrong.
        cause: String,
    },
    /// The API server did not answer a delete, or not as it should.
    #[error("{object} could not be deleted: {}; it is tried again", words(cause))]
    Delete {
        /// Kind and name.
        object: String,
        /// What went wrong.
        cause: Box<kube::Error>,
    },
    /// Another operator took the Lease, or it could not be renewed in time.
    #[error(
        "this operator no longer leads and ends, so that it does not act beside another one; it is started again"
    )]
    LeadershipLost,
    /// The port of /health and /metrics cannot be had.
    #[error("port {port} cannot be used for /health and /metrics: {cause}; choose another with --http-port")]
    Listen {
        /// The port.
        port: u16,
        /// What went wrong.
        cause: std::io::Error,
    },
    /// An option of `run` makes no sense.
    #[error("--{option} {value}: {remedy}")]
    Option {
        /// Its name.
        option: &'static str,
        /// What was given.
        value: String,
        /// What to give instead.
        remedy: &'static str,
    },
    /// The PersistentVolumeClaim that the source names could not be looked up.
    #[error("PersistentVolumeClaim {name} could not be read: {}; it is tried again", words(cause))]
    ReadClaim {
        /// Its name.
        name: String,
        /// What went wrong.
        cause: Box<kube::Error>,
    },
    /// The Secret of the exchange could not be looked up.
    #[error("Secret {name} could not be read: {}; it is tried again", words(cause))]
    ReadSecret {
        /// Its name.
        name: String,
        /// What went wrong.
        cause: Box<kube::Error>,
    },
    /// The API server refused objects; the status says which and why.
    #[error("the API server refused {0}; the status says why, and it is tried again")]
    Refused(String),
    /// One reconcile took too long.
    #[error("the API server took too long to answer; it is tried again")]
    Timeout,
    /// The status could not be written.
    #[error("the status of ModelDeployment {name} could not be written: {}; it is tried again", words(cause))]
    WriteStatus {
        /// Its name.
        name: String,
        /// What went wrong.
        cause: Box<kube::Error>,
    },
}

impl Error {
    /// The variant's name, for metrics.
    pub fn variant(&self) -> &'static str {
        match self {
            Error::Apply { .. } => "Apply",
            Error::Certificates { .. } => "Certificates",
            Error::Delete { .. } => "Delete",
            Error::LeadershipLost => "LeadershipLost",
            Error::Listen { .. } => "Listen",
            Error::Option { .. } => "Option",
            Error::ReadClaim { .. } => "ReadClaim",
            Error::ReadSecret { .. } => "ReadSecret",
            Error::Refused(_) => "Refused",
            Error::Timeout => "Timeout",
            Error::WriteStatus { .. } => "WriteStatus",
        }
    }
}

/// The API server's own sentence where there is one (kube's wording repeats it three times), else the whole chain.
pub fn words(error: &kube::Error) -> String {
    match error {
        kube::Error::Api(status) => status.message.clone(),
        error => chain(error),
    }
}

/// The error and its causes, down to the first. A cause that the words before it contain is left out.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let words = error.to_string();
        if !text.contains(&words) {
            text = format!("{text}: {words}");
        }
        cause = error.source();
    }
    text
}

/// The request itself is at fault, and not the server's load (429) or our credentials (401).
pub fn is_refusal(error: &kube::Error) -> bool {
    let kube::Error::Api(status) = error else { return false };
    let is_ours = (400..500).contains(&status.code) && !matches!(status.code, 401 | 429);
    // What an apply with a field that the schema lacks is answered with comes as an internal error.
    is_ours || status.message.contains("field not declared in schema")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io;

    #[derive(Debug, thiserror::Error)]
    #[error("{words}")]
    struct Layer {
        words: &'static str,
        source: Option<Box<Layer>>,
    }

    fn layers(words: &[&'static str]) -> Option<Box<Layer>> {
        let (first, rest) = words.split_first()?;
        Some(Box::new(Layer { words: first, source: layers(rest) }))
    }

    #[test]
    fn every_cause_is_told_once() {
        let error = layers(&["client error: connect", "connect", "tls", "unknown issuer"]).unwrap();
        assert_eq!(chain(&*error), "client error: connect: tls: unknown issuer");
    }

    #[test]
    fn the_first_cause_is_in_the_sentence_and_only_there() {
        let inner = io::Error::other(layers(&["handshake failed", "unknown issuer"]).unwrap());
        let cause = Box::new(kube::Error::Service(Box::new(inner)));
        let error = Error::ReadClaim { name: "weights".to_owned(), cause };
        let told = format!("{:#}", anyhow::Error::new(error));
        assert!(told.contains("handshake failed: unknown issuer; it is tried again"), "{told}");
        assert_eq!(told.matches("unknown issuer").count(), 1, "{told}");
    }
}
