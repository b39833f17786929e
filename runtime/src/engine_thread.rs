//! The engine's own thread. The engine is synchronous; requests reach it by a channel, and each request's events
//! leave by a channel of its own, so that a slow reader delays nobody. A reader that goes away is noticed before the
//! next step, and its request is cancelled: dropping [`TokenStreams`] is all that it takes.

mod published;
mod run;
mod streams;
mod timing;

use crate::metrics::Metrics;
use crate::termination::failed;
use coterie_api::launch::Termination;
use coterie_engine::{Engine, Event, Load, Loaded, Rejected, Request, RequestId};
use published::Published;
use run::Running;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, mpsc as thread_channel};
use std::time::{Duration, Instant};
pub use streams::TokenStreams;
use streams::{Told, cut_of};
pub use timing::Timing;
use tokio::sync::{mpsc, oneshot, watch};

/// What can continue token sequences: the [`Engine`], or a script in tests.
pub trait TokenSource {
    /// As [`Engine::submit`].
    fn submit(&mut self, request: Request) -> Result<RequestId, Rejected>;
    /// As [`Engine::cancel`].
    fn cancel(&mut self, id: RequestId);
    /// As [`Engine::step`].
    fn step(&mut self, events: &mut Vec<Event>);
    /// As [`Engine::is_idle`].
    fn is_idle(&self) -> bool;
    /// As [`Engine::load_now`].
    fn load_now(&self) -> Load;
    /// As [`Engine::max_running`].
    fn max_running(&self) -> usize;
    /// As [`Engine::context_length`].
    fn context_length(&self) -> usize;
    /// As [`Engine::loaded`]; what was not loaded took nothing.
    fn loaded(&self) -> Loaded {
        Loaded::default()
    }
    /// As [`Engine::vocabulary`].
    fn vocabulary(&self) -> usize;
    /// As [`Engine::stop_tokens`].
    fn stop_tokens(&self) -> &[u32];
}

impl TokenSource for Engine {
    fn submit(&mut self, request: Request) -> Result<RequestId, Rejected> {
        Engine::submit(self, request)
    }
    fn cancel(&mut self, id: RequestId) {
        Engine::cancel(self, id);
    }
    fn step(&mut self, events: &mut Vec<Event>) {
        Engine::step(self, events);
    }
    fn is_idle(&self) -> bool {
        Engine::is_idle(self)
    }
    fn load_now(&self) -> Load {
        Engine::load_now(self)
    }
    fn max_running(&self) -> usize {
        Engine::max_running(self)
    }
    fn context_length(&self) -> usize {
        Engine::context_length(self)
    }
    fn loaded(&self) -> Loaded {
        Engine::loaded(self)
    }
    fn vocabulary(&self) -> usize {
        Engine::vocabulary(self)
    }
    fn stop_tokens(&self) -> &[u32] {
        Engine::stop_tokens(self)
    }
}

/// What the engine's thread has done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Work {
    /// Steps.
    pub steps: u64,
    /// How long they took together.
    pub busy: Duration,
}

/// Why every stream ended before its request did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cut {
    /// The time to finish after SIGTERM is over.
    DrainDeadline,
    /// The engine's thread panicked; its words.
    EngineDied(String),
}

/// The way to a running engine; clones share it. The thread ends when the last one is gone.
#[derive(Clone)]
pub struct EngineHandle {
    submissions: thread_channel::Sender<Submission>,
    shared: Arc<Shared>,
    max_running: usize,
    context_length: usize,
    loaded: Loaded,
    vocabulary: usize,
    stop_tokens: Arc<[u32]>,
}

/// Requests on their way to the engine, which takes all of them or none.
struct Submission {
    requests: Vec<Submitted>,
    arrived: Instant,
    accepted: oneshot::Sender<Result<(), NotSubmitted>>,
}

/// One of them.
struct Submitted {
    request: Request,
    /// Unbounded, but never longer than one answer: the context length bounds it.
    events: mpsc::UnboundedSender<Told>,
}

/// What the thread and the handles see together.
struct Shared {
    load: Published,
    /// Requests that the engine has not looked at yet.
    arriving: AtomicUsize,
    cut: watch::Sender<Option<Cut>>,
}

/// Why none of the requests of a submission got to run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NotSubmitted {
    /// The engine refused one of them.
    Rejected(Rejected),
    /// They are more than may ever wait together.
    TooMany {
        /// How many they are.
        requests: usize,
        /// How many may wait.
        limit: usize,
    },
    /// They come with more tokens than may ever wait together.
    TooManyTokens {
        /// Tokens of all of them.
        tokens: usize,
        /// Tokens that may wait.
        limit: usize,
    },
    /// There is no engine to run them any more.
    Cut(Cut),
}

/// Starts the thread, loads on it with `load`, and gives the way to the engine once that is done.
pub async fn spawn<S, L>(load: L, metrics: Arc<Metrics>) -> Result<EngineHandle, Termination>
where
    S: TokenSource,
    L: FnOnce() -> Result<S, Termination> + Send + 'static,
{
    let (loaded, wait_loaded) = oneshot::channel();
    let thread = std::thread::Builder::new().name("engine".to_owned());
    let body = move || match catch_unwind(AssertUnwindSafe(load)) {
        Ok(Ok(source)) => {
            let (handle, submissions) = EngineHandle::new(&source);
            let shared = handle.shared.clone();
            if loaded.send(Ok(handle)).is_ok() {
                work(source, submissions, &shared, metrics);
            }
        }
        Ok(Err(refused)) => drop(loaded.send(Err(refused))),
        Err(panic) => {
            let why = failed(format!("loading the model panicked: {}", words_of(&*panic)));
            drop(loaded.send(Err(why)));
        }
    };
    thread
        .spawn(body)
        .map_err(|error| failed(format!("the engine's thread could not be started: {error}")))?;
    wait_loaded.await.unwrap_or_else(|_| Err(failed("the engine's thread ended while it loaded the model")))
}

/// Runs the engine to the end of the process or of the engine. `running` outlives a panic, so that the reason is set
/// before the streams end.
fn work(
    source: impl TokenSource,
    submissions: thread_channel::Receiver<Submission>,
    shared: &Shared,
    metrics: Arc<Metrics>,
) {
    let mut running = Running::new(source, metrics);
    let ended = catch_unwind(AssertUnwindSafe(|| running.until_unused(&submissions, shared)));
    if let Err(panic) = ended {
        shared.cut.send_replace(Some(Cut::EngineDied(words_of(&*panic))));
        shared.arriving.store(0, Ordering::Relaxed);
        running.end_streams_and_forget_source();
    }
}

fn words_of(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(ToString::to_string);
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "no reason given".to_owned())
}

impl EngineHandle {
    fn new(source: &impl TokenSource) -> (EngineHandle, thread_channel::Receiver<Submission>) {
        let (submissions, receiver) = thread_channel::channel();
        let shared = Shared {
            load: Published::new(&source.load_now()),
            arriving: AtomicUsize::new(0),
            cut: watch::Sender::new(None),
        };
        let handle = EngineHandle {
            submissions,
            shared: Arc::new(shared),
            max_running: source.max_running(),
            context_length: source.context_length(),
            loaded: source.loaded(),
            vocabulary: source.vocabulary(),
            stop_tokens: source.stop_tokens().into(),
        };
        (handle, receiver)
    }

    /// Hands `requests`, which came at `arrived`, to the engine; returns once it has taken all of them, or none.
    pub async fn submit(
        &self,
        requests: Vec<Request>,
        arrived: Instant,
    ) -> Result<TokenStreams, NotSubmitted> {
        let many = requests.len();
        let mut streams = Vec::with_capacity(many);
        let submitted = |request| {
            let (events, stream) = mpsc::unbounded_channel();
            streams.push(stream);
            Submitted { request, events }
        };
        let requests = requests.into_iter().map(submitted).collect();
        let (accepted, wait_accepted) = oneshot::channel();
        let mut cut = self.shared.cut.subscribe();
        self.shared.arriving.fetch_add(many, Ordering::Relaxed);
        let sent = self.submissions.send(Submission { requests, arrived, accepted });
        let answer = tokio::select! {
            biased;
            answer = wait_accepted, if sent.is_ok() => answer.ok(),
            _ = cut.wait_for(Option::is_some) => None,
        };
        match answer {
            Some(Ok(())) => Ok(TokenStreams::new(streams, cut)),
            Some(Err(why)) => Err(why),
            None => Err(NotSubmitted::Cut(cut_of(&cut))),
        }
    }

    /// Ends every stream now; what has not begun will not.
    pub fn cut(&self, why: Cut) {
        self.shared.cut.send_if_modified(|cut| cut.is_none() && cut.replace(why).is_none());
    }

    /// Waits for the engine to die; gives its last words.
    pub async fn died(&self) -> String {
        let mut cut = self.shared.cut.subscribe();
        let died = cut
            .wait_for(|cut| matches!(cut, Some(Cut::EngineDied(_))))
            .await
            .ok()
            .and_then(|cut| cut.clone());
        match died {
            Some(Cut::EngineDied(words)) => words,
            _ => std::future::pending().await,
        }
    }

    /// What the engine does now; requests that it has not looked at yet count as waiting.
    pub fn load(&self) -> Load {
        let mut load = self.shared.load.get();
        load.waiting += self.shared.arriving.load(Ordering::Relaxed);
        load
    }

    /// What its thread has done since it began.
    pub fn work(&self) -> Work {
        self.shared.load.work()
    }

    /// Requests in one batch at most.
    pub fn max_running(&self) -> usize {
        self.max_running
    }

    /// What loading the model took.
    pub fn loaded(&self) -> Loaded {
        self.loaded
    }

    /// Longest request, prompt and answer, tokens.
    pub fn context_length(&self) -> usize {
        self.context_length
    }

    /// Token ids below this exist.
    pub fn vocabulary(&self) -> usize {
        self.vocabulary
    }

    /// The tokens that end an answer.
    pub fn stop_tokens(&self) -> &[u32] {
        &self.stop_tokens
    }
}
