//! `coterie serve`: the life of the process. Listen, load, test, serve, drain.

mod one_of_several;

use crate::chat_template::Rendering;
use crate::config::ServeArgs;
use crate::engine_thread::{Cut, EngineHandle, TokenSource, spawn};
use crate::exchange::Window;
use crate::grammar::Grammars;
use crate::machine::open_files;
use crate::model_dir;
use crate::readiness::Phase;
use crate::self_test;
use crate::served_model::{ServedModel, TextSide};
use crate::server::{Front, Limits, accept, router};
use crate::signals::{Asked, listen};
use crate::telemetry;
use crate::termination::{failed, not_loaded};
use coterie_api::launch::Termination;
use coterie_engine::Engine;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, sleep_until, timeout};

/// After SIGTERM, new requests are still served for so long: until then somebody may believe that we are ready.
pub const LAME_DUCK: Duration = Duration::from_secs(3);
/// How long a dead engine's process stays, to tell streams and probes.
const LAST_WORDS: Duration = Duration::from_secs(1);
/// After streams were cut, how long their last words may take to leave.
const CUT_GRACE: Duration = Duration::from_secs(2);
/// Exit code after a second SIGINT, as a shell gives it.
pub(crate) const INTERRUPTED: u8 = 130;

/// What a served process is told, beside its engine.
#[derive(Clone, Debug)]
pub struct ServeOptions {
    /// Folder with the tokenizer and the chat template.
    pub model_dir: PathBuf,
    /// Where the chat template is rendered.
    pub rendering: Rendering,
    /// Name that clients put into `model`.
    pub served_name: String,
    /// URL to which spans are posted, if they are.
    pub collector: Option<String>,
    /// For how long new requests are still taken once a drain begins.
    pub lame_duck: Duration,
    /// How long after its beginning a drain may last.
    pub drain: Duration,
    /// What clients may take.
    pub limits: Limits,
    /// This rank's experts and the other ranks; opened by whoever loads the engine.
    pub experts: Window,
}

/// How a process that did its work ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// Every request was answered.
    Drained,
    /// It was told not to wait.
    Interrupted,
}

/// Serves as the command line says, until told to end.
pub fn run(args: &ServeArgs) -> Result<ExitCode, Termination> {
    model_dir::must_be_there(&args.model)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2) // the engine has the cores; the network needs little
        .max_blocking_threads(2) // one splits a long text into tokens, one is free for short ones
        .enable_all()
        .build()
        .map_err(|error| failed(format!("the network's threads could not be started: {error}")))?;
    let ended = runtime.block_on(async {
        let listener = accept::bind((args.host, args.port).into()).map_err(|error| {
            failed(format!(
                "cannot listen on {}:{}: {error}; stop what uses the port, or choose another",
                args.host, args.port
            ))
        })?;
        let asked = listen()?;
        let options = ServeOptions {
            model_dir: args.model.clone(),
            rendering: Rendering::by_this_program(),
            served_name: args.served_name(),
            collector: telemetry::endpoint(args.otlp_traces_endpoint.as_deref(), |name| {
                std::env::var(name).ok()
            }),
            lame_duck: LAME_DUCK,
            drain: Duration::from_secs(args.drain_seconds.into()),
            limits: Limits::with_connections(args.max_connections, open_files()),
            experts: Window::default(),
        };
        let prepared = one_of_several::prepare(args)?;
        let (dir, engine, window) = (args.model.clone(), args.engine_options(), options.experts.clone());
        let load = move |progress: &dyn Fn(f32)| {
            let loaded = match prepared {
                Some(prepared) => one_of_several::load(&dir, &engine, prepared, &window, progress),
                None => Engine::load(&dir, &engine, progress),
            };
            loaded.map_err(not_loaded)
        };
        serve(listener, options, load, asked).await
    });
    // The engine's thread may still be loading; the process ends without it.
    runtime.shutdown_background();
    Ok(match ended? {
        Ended::Drained => ExitCode::SUCCESS,
        Ended::Interrupted => ExitCode::from(INTERRUPTED),
    })
}

/// Serves on `listener` the model that `load` loads, until `asked` to end. `load` runs on the engine's thread and is
/// given a function to tell the share that is loaded.
pub async fn serve<S, L>(
    listener: TcpListener,
    options: ServeOptions,
    load: L,
    asked: watch::Receiver<Asked>,
) -> Result<Ended, Termination>
where
    S: TokenSource,
    L: FnOnce(&dyn Fn(f32)) -> Result<S, Termination> + Send + 'static,
{
    let front = Arc::new(Front::new(
        options.served_name.clone(),
        options.limits,
        options.collector.as_deref(),
        options.experts.clone(),
    ));
    let ended = live(listener, &front, &options, load, asked).await;
    if ended != Ok(Ended::Interrupted) {
        front.traces.flush().await;
    }
    ended
}

/// From listening to the end.
async fn live<S, L>(
    listener: TcpListener,
    front: &Arc<Front>,
    options: &ServeOptions,
    load: L,
    mut asked: watch::Receiver<Asked>,
) -> Result<Ended, Termination>
where
    S: TokenSource,
    L: FnOnce(&dyn Fn(f32)) -> Result<S, Termination> + Send + 'static,
{
    let (stop, stopped) = watch::channel(false);
    if let Ok(address) = listener.local_addr() {
        tracing::info!(%address, model = options.served_name, "listening; loading the model");
    }
    let connections = tokio::spawn(accept::accept(listener, router(front.clone()), options.limits, stopped));

    let engine = tokio::select! {
        engine = bring_up(front, options, load) => engine?,
        asked = until(&mut asked, Asked::Drain) => {
            tracing::info!("asked to end before the model was loaded");
            return Ok(if asked == Asked::EndNow { Ended::Interrupted } else { Ended::Drained });
        }
    };
    let server = Serving { front: front.clone(), engine, connections, stop };
    server.until_ended(options, asked).await
}

/// Loads the model, proves that it generates, and opens the front.
async fn bring_up<S, L>(
    front: &Arc<Front>,
    options: &ServeOptions,
    load: L,
) -> Result<EngineHandle, Termination>
where
    S: TokenSource,
    L: FnOnce(&dyn Fn(f32)) -> Result<S, Termination> + Send + 'static,
{
    let started = Instant::now();
    let (dir, rendering) = (options.model_dir.clone(), options.rendering.clone());
    // First what is small: a folder without a tokenizer is refused before its weights are read.
    let text = tokio::task::spawn_blocking(move || TextSide::load(&dir, &rendering)).await;
    let text = text.unwrap_or_else(|_| Err(failed("reading the tokenizer panicked")))?;
    let metrics = front.metrics.clone();
    let progress = front.metrics.clone();
    let engine = spawn(move || load(&|share| progress.set_weights_loaded(share)), metrics).await?;
    let loaded = engine.loaded();
    front.metrics.set_loaded(loaded);
    let load_seconds = started.elapsed().as_secs_f64();
    tracing::info!(load_seconds, "the model is loaded; testing it");

    front.readiness.advance(Phase::Testing);
    let text = Arc::new(text);
    let grammars = Arc::new(Grammars::new(text.clone(), engine.vocabulary(), engine.stop_tokens()));
    let model = ServedModel::new(text, engine.clone(), grammars);
    self_test::run(&model).await?;
    front.open(model);
    tracing::info!(
        seconds = started.elapsed().as_secs_f64(),
        context = engine.context_length(),
        read_bytes = loaded.bytes,
        load_seconds = loaded.time.as_secs_f64(),
        gb_per_second = loaded.rate() / 1e9,
        "ready"
    );
    Ok(engine)
}

/// Waits until at least `least` was asked.
pub(crate) async fn until(asked: &mut watch::Receiver<Asked>, least: Asked) -> Asked {
    let reached = asked.wait_for(|asked| *asked >= least).await.ok().map(|asked| *asked);
    match reached {
        Some(asked) => asked,
        None => std::future::pending().await,
    }
}

/// A process that serves.
struct Serving {
    front: Arc<Front>,
    engine: EngineHandle,
    connections: JoinHandle<()>,
    stop: watch::Sender<bool>,
}

impl Serving {
    async fn until_ended(
        mut self,
        options: &ServeOptions,
        mut asked: watch::Receiver<Asked>,
    ) -> Result<Ended, Termination> {
        let engine = self.engine.clone();
        let mut now = asked.clone();
        tokio::select! {
            words = engine.died() => Err(self.last_words(&words).await),
            _ = until(&mut now, Asked::EndNow) => Ok(Ended::Interrupted),
            drained = async {
                until(&mut asked, Asked::Drain).await;
                self.drain(options).await
            } => drained,
        }
    }

    async fn drain(&mut self, options: &ServeOptions) -> Result<Ended, Termination> {
        let deadline = Instant::now() + options.drain;
        tracing::info!(seconds = options.drain.as_secs(), "draining");
        self.front.readiness.advance(Phase::Draining);
        sleep(options.lame_duck.min(options.drain)).await;
        self.stop.send_replace(true);
        tokio::select! {
            _ = &mut self.connections => {
                tracing::info!("drained");
                return Ok(Ended::Drained);
            }
            () = sleep_until(deadline) => {}
        }
        let load = self.engine.load();
        // Connections on which nothing runs need a moment to close.
        if load.running + load.waiting == 0 && timeout(CUT_GRACE, &mut self.connections).await.is_ok() {
            tracing::info!("drained");
            return Ok(Ended::Drained);
        }
        let unfinished = match load.running + load.waiting {
            0 => "requests that were not with the engine yet".to_owned(),
            requests => format!("{requests} requests"),
        };
        self.engine.cut(Cut::DrainDeadline);
        let _ = timeout(CUT_GRACE, &mut self.connections).await;
        Err(failed(format!(
            "{unfinished} were not finished {} s after the process was asked to end and were cut; allow more time with --drain-seconds",
            options.drain.as_secs()
        )))
    }

    /// Lets streams and probes see that the engine is dead, then gives the reason to end with.
    async fn last_words(&mut self, words: &str) -> Termination {
        tracing::error!(words, "the engine died");
        self.front.readiness.advance(Phase::Dead);
        sleep(LAST_WORDS).await;
        self.stop.send_replace(true);
        failed(format!(
            "the engine died: {words}; this is a bug of the runtime, and the process must be restarted"
        ))
    }
}
