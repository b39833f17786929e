//! Why the operator, or one reconcile of it, could not go on.

/// One variant per thing that was tried; its name is the metric's label.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The API server did not answer a create or an apply, or not as it should.
    #[error("{object} could not be written: {}; it is tried again", words(source))]
    Apply {
        /// Kind and name.
        object: String,
        /// What went wrong.
        source: Box<kube::Error>,
    },
    /// The API server did not answer a delete, or not as it should.
    #[error("{object} could not be deleted: {}; it is tried again", words(source))]
    Delete {
        /// Kind and name.
        object: String,
        /// What went wrong.
        source: Box<kube::Error>,
    },
    /// Another operator took the Lease, or it could not be renewed in time.
    #[error(
        "this operator no longer leads and ends, so that it does not act beside another one; it is started again"
    )]
    LeadershipLost,
    /// The port of /health and /metrics cannot be had.
    #[error("port {port} cannot be used for /health and /metrics: {source}; choose another with --http-port")]
    Listen {
        /// The port.
        port: u16,
        /// What went wrong.
        source: std::io::Error,
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
    #[error("PersistentVolumeClaim {name} could not be read: {}; it is tried again", words(source))]
    ReadClaim {
        /// Its name.
        name: String,
        /// What went wrong.
        source: Box<kube::Error>,
    },
    /// The API server refused objects; the status says which and why.
    #[error("the API server refused {0}; the status says why, and it is tried again")]
    Refused(String),
    /// One reconcile took too long.
    #[error("the API server took too long to answer; it is tried again")]
    Timeout,
    /// The status could not be written.
    #[error(
        "the status of ModelDeployment {name} could not be written: {}; it is tried again",
        words(source)
    )]
    WriteStatus {
        /// Its name.
        name: String,
        /// What went wrong.
        source: Box<kube::Error>,
    },
}

impl Error {
    /// The variant's name, for metrics.
    pub fn variant(&self) -> &'static str {
        match self {
            Error::Apply { .. } => "Apply",
            Error::Delete { .. } => "Delete",
            Error::LeadershipLost => "LeadershipLost",
            Error::Listen { .. } => "Listen",
            Error::Option { .. } => "Option",
            Error::ReadClaim { .. } => "ReadClaim",
            Error::Refused(_) => "Refused",
            Error::Timeout => "Timeout",
            Error::WriteStatus { .. } => "WriteStatus",
        }
    }
}

/// The API server's own sentence where there is one; kube's wording repeats it three times.
pub fn words(error: &kube::Error) -> String {
    match error {
        kube::Error::Api(status) => status.message.clone(),
        error => error.to_string(),
    }
}
