//! Rendering in a process of its own, so that a template can harm nothing but its own conversation.

use super::interpreter::Variables;
use super::renderer::{MEMORY, SECONDS};
use super::wire::{Answer, write_question};
use super::{NotRendered, Render};
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// The subcommand that is the renderer.
pub const SUBCOMMAND: &str = "render-template";
/// A renderer that has not answered by then is ended. Its own clock counts what it computes; this one also counts
/// waiting for a processor.
const PATIENCE: Duration = Duration::from_secs(30);
/// What of the environment a renderer gets: `strftime_now` depends on it.
const ENVIRONMENT: [&str; 2] = ["TZ", "TZDIR"];

/// A template whose renderer is started when it is needed, and again after it has died.
pub struct Aside {
    program: PathBuf,
    template: String,
    renderer: Mutex<Option<Renderer>>,
}

impl Aside {
    /// Compiles a template in a process of the program `coterie`.
    pub fn new(program: &Path, template: &str) -> Result<Aside, NotRendered> {
        let renderer = Renderer::start(program, template)?;
        Ok(Aside {
            program: program.to_owned(),
            template: template.to_owned(),
            renderer: Mutex::new(Some(renderer)),
        })
    }
}

impl Render for Aside {
    fn render(&self, variables: &Variables) -> Result<String, NotRendered> {
        let question =
            serde_json::to_vec(variables).map_err(|error| NotRendered::Failed(error.to_string()))?;
        let mut kept = self.renderer.lock().unwrap_or_else(PoisonError::into_inner);
        let of_before = kept.take().map(|mut renderer| (renderer.ask(&question), renderer));
        let (answer, renderer) = match of_before {
            // It may have died while nobody asked, and of nothing that this conversation did.
            Some((Err(NotRendered::Failed(_)), _)) | None => {
                let mut renderer = Renderer::start(&self.program, &self.template)?;
                (renderer.ask(&question)?, renderer)
            }
            Some((answer, renderer)) => (answer?, renderer),
        };
        if !answer.last {
            *kept = Some(renderer);
        }
        answer.rendered.map_err(NotRendered::Refused)
    }
}

/// One process, which ends with this.
struct Renderer {
    process: Child,
    socket: UnixStream,
}

impl Renderer {
    /// One that has compiled `template`.
    fn start(program: &Path, template: &str) -> Result<Renderer, NotRendered> {
        let mut renderer = Renderer::spawn(program).map_err(|error| {
            NotRendered::Failed(format!("no process could be started to render chat templates: {error}"))
        })?;
        renderer.ask(template.as_bytes())?.rendered.map_err(NotRendered::Refused)?;
        Ok(renderer)
    }

    fn spawn(program: &Path) -> io::Result<Renderer> {
        let (socket, its_own) = UnixStream::pair()?;
        let environment = ENVIRONMENT.iter().filter_map(|name| Some((name, std::env::var_os(name)?)));
        let process = Command::new(program)
            .arg(SUBCOMMAND)
            .env_clear()
            .envs(environment)
            .stdin(OwnedFd::from(its_own))
            .stdout(Stdio::null())
            .stderr(Stdio::null()) // how it died is told by its status
            .spawn()?;
        Ok(Renderer { process, socket })
    }

    fn ask(&mut self, question: &[u8]) -> Result<Answer, NotRendered> {
        let deadline = Instant::now() + PATIENCE;
        let mut socket = Timed { socket: &self.socket, deadline };
        let answer = write_question(&mut socket, question).and_then(|()| Answer::read(&mut socket));
        answer.map_err(|error| self.end(&error))
    }

    /// Why there was no answer.
    fn end(&mut self, error: &io::Error) -> NotRendered {
        use io::ErrorKind::{BrokenPipe, ConnectionReset, TimedOut, UnexpectedEof, WouldBlock};
        let lost = |error: &io::Error| {
            NotRendered::Failed(format!("the renderer of chat templates is lost: {error}"))
        };
        match error.kind() {
            WouldBlock | TimedOut => {
                NotRendered::Exceeded(format!("it was not rendered within {} s", PATIENCE.as_secs()))
            }
            // Its end of the socket is closed, so it has ended, and its status says why.
            BrokenPipe | ConnectionReset | UnexpectedEof => match self.process.wait() {
                Ok(status) => death(status),
                Err(error) => lost(&error),
            },
            _ => lost(error),
        }
    }
}

impl Drop for Renderer {
    fn drop(&mut self) {
        // Of one that is gone already there is nothing to end, and its status is still to be fetched.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn death(status: ExitStatus) -> NotRendered {
    match status.signal() {
        Some(libc::SIGPROF) => NotRendered::Exceeded(format!("it took more than {SECONDS} s to compute")),
        // No memory, and no stack: Rust aborts.
        Some(libc::SIGABRT | libc::SIGSEGV) => {
            NotRendered::Exceeded(format!("it took more than {} MiB of memory", MEMORY >> 20))
        }
        _ => NotRendered::Failed(format!("the renderer of chat templates ended with {status}")),
    }
}

/// A socket that is given up at a time, however many pieces come until then.
struct Timed<'a> {
    socket: &'a UnixStream,
    deadline: Instant,
}

impl Timed<'_> {
    fn left(&self) -> io::Result<Option<Duration>> {
        let left = self.deadline.saturating_duration_since(Instant::now());
        if left.is_zero() { Err(io::ErrorKind::TimedOut.into()) } else { Ok(Some(left)) }
    }
}

impl Read for Timed<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.socket.set_read_timeout(self.left()?)?;
        self.socket.read(buffer)
    }
}

impl Write for Timed<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.socket.set_write_timeout(self.left()?)?;
        self.socket.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
