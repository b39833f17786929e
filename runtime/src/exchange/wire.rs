//! One connection between two ranks, plain or TLS, read and written by one thread at a time.
//!
//! Reads and writes block, but never for longer than [`TICK`] without asking whether to go on; another thread that
//! shuts the socket down ends them at once.

use super::frame::{BadFrame, HEADER, Header, Kind, REASON};
use super::hello::Versions;
use super::limits::Limits;
use std::io::{self, IoSlice, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::{Duration, Instant};
use thiserror::Error;

/// How often a waiting thread looks whether to go on.
pub const TICK: Duration = Duration::from_millis(50);

/// Bytes in both directions.
pub trait Duplex: Read + Write + Send {}
impl<T: Read + Write + Send> Duplex for T {}

/// One connection.
pub struct Wire {
    stream: Box<dyn Duplex>,
    socket: TcpStream,
}

/// Why a connection is of no more use.
#[derive(Debug, Error)]
pub enum Broken {
    /// The other side is gone.
    #[error("the connection was closed")]
    Closed,
    /// The system or TLS said so.
    #[error("{0}")]
    Io(io::Error),
    /// What came made no sense.
    #[error(transparent)]
    Frame(#[from] BadFrame),
    /// The other side said no.
    #[error("refused: {0}")]
    Refused(String),
    /// Nothing came for too long.
    #[error("nothing was heard for {:.1} s", .0.as_secs_f64())]
    Silent(Duration),
    /// An answer took longer than answers of its kind do, and others can give it.
    #[error("no answer for {} ms, and others can give it", .0.as_millis())]
    Slow(Duration),
    /// This process ends the connection itself.
    #[error("the connection is no longer needed")]
    Ended,
}

/// Says whether to go on waiting; asked every [`TICK`] in which nothing moved.
pub type Wait<'a> = &'a mut dyn FnMut() -> Result<(), Broken>;

impl Wire {
    /// Of a connected socket, spoken to through `stream`.
    pub fn new(socket: TcpStream, stream: Box<dyn Duplex>) -> Wire {
        Wire { stream, socket }
    }

    /// What another thread needs to end this connection.
    pub fn closer(&self) -> io::Result<Closer> {
        self.socket.try_clone().map(Closer)
    }

    /// From now on a read waits for `time` at most.
    pub fn read_for(&self, time: Duration) -> io::Result<()> {
        self.socket.set_read_timeout(Some(time))
    }

    /// Some bytes, if they come in time.
    pub fn read(&mut self, bytes: &mut [u8]) -> Result<Option<usize>, Broken> {
        loop {
            match self.stream.read(bytes) {
                Ok(0) => return Err(Broken::Closed),
                Ok(count) => return Ok(Some(count)),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if timed_out(&error) => return Ok(None),
                Err(error) => return Err(of_system(error)),
            }
        }
    }

    /// All of `bytes`.
    pub fn fill(&mut self, mut bytes: &mut [u8], wait: Wait<'_>) -> Result<(), Broken> {
        while !bytes.is_empty() {
            match self.read(bytes)? {
                Some(count) => bytes = &mut bytes[count..],
                None => wait()?,
            }
        }
        Ok(())
    }

    /// Writes `head` and then `rows`, without copying them together.
    pub fn write(&mut self, head: &[u8], rows: &[u8], wait: Wait<'_>) -> Result<(), Broken> {
        let mut parts = [IoSlice::new(head), IoSlice::new(rows)];
        let mut rest = &mut parts[..];
        IoSlice::advance_slices(&mut rest, 0);
        while !rest.is_empty() {
            match self.stream.write_vectored(rest) {
                // TLS has no room for more until some of it is on its way.
                Ok(0) => {
                    self.flush(wait)?;
                    wait()?;
                }
                Ok(count) => IoSlice::advance_slices(&mut rest, count),
                Err(error) => retry(error, wait)?,
            }
        }
        self.flush(wait)
    }

    fn flush(&mut self, wait: Wait<'_>) -> Result<(), Broken> {
        loop {
            match self.stream.flush() {
                Ok(()) => return Ok(()),
                Err(error) => retry(error, wait)?,
            }
        }
    }

    /// The next frame's header, found possible.
    pub fn header(&mut self, limits: &Limits, wait: Wait<'_>) -> Result<Header, Broken> {
        let mut bytes = [0; HEADER];
        self.fill(&mut bytes, wait)?;
        let header = Header::decode(&bytes)?;
        limits.check(&header)?;
        Ok(header)
    }

    /// Says no.
    pub fn refuse(&mut self, reason: &str, wait: Wait<'_>) -> Result<(), Broken> {
        let reason = &reason.as_bytes()[..reason.floor_char_boundary(REASON)];
        let header = Header { kind: Kind::Refused, payload: reason.len() as u32, ..Header::default() };
        self.write(&header.encode(), reason, wait)
    }

    /// A sign of life.
    pub fn pulse(&mut self, versions: &Versions, wait: Wait<'_>) -> Result<(), Broken> {
        let bytes = versions.encode();
        let header = Header { kind: Kind::Pulse, payload: bytes.len() as u32, ..Header::default() };
        self.write(&header.encode(), &bytes, wait)
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        // A closer somewhere else must not keep it open.
        let _ = self.socket.shutdown(Shutdown::Both);
    }
}

/// Ends a connection from any thread.
pub struct Closer(TcpStream);

impl Closer {
    /// Whoever reads or writes is told at once.
    pub fn close(&self) {
        // Fails only if it is closed.
        let _ = self.0.shutdown(Shutdown::Both);
    }
}

/// Waits until `deadline`, and no longer than this process goes on.
pub fn until(deadline: Instant, ended: impl Fn() -> bool) -> impl FnMut() -> Result<(), Broken> {
    let began = Instant::now();
    move || match (ended(), Instant::now() >= deadline) {
        (true, _) => Err(Broken::Ended),
        (_, true) => Err(Broken::Silent(began.elapsed())),
        _ => Ok(()),
    }
}

/// Makes a socket one of ours: small frames leave at once, nobody waits for long.
pub fn prepare(socket: &TcpStream) -> io::Result<()> {
    socket.set_nodelay(true)?;
    socket.set_read_timeout(Some(TICK))?;
    socket.set_write_timeout(Some(TICK))
}

fn retry(error: io::Error, wait: Wait<'_>) -> Result<(), Broken> {
    match error.kind() {
        io::ErrorKind::Interrupted => Ok(()),
        _ if timed_out(&error) => wait(),
        _ => Err(of_system(error)),
    }
}

fn timed_out(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut)
}

fn of_system(error: io::Error) -> Broken {
    use io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, UnexpectedEof};
    match error.kind() {
        BrokenPipe | ConnectionAborted | ConnectionReset | UnexpectedEof => Broken::Closed,
        _ => Broken::Io(error),
    }
}
