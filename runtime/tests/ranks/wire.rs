//! The way from one rank to another, on which one frame has an accident.
//!
//! Knows of frames what docs/one-token.md draws: a header of 32 bytes, the kind in byte 6, the flags in byte 7, the length
//! of what follows in bytes 20 to 24.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::sleep;

const HEADER: usize = 32;
/// Longer than a peer may be silent.
const DELAY: Duration = Duration::from_millis(600);
const LOOK: Duration = Duration::from_millis(5);

/// Which frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    Hello,
    Welcome,
    PulseThere,
    PulseBack,
    Parcel,
    Answer,
    AdoptingParcel,
    /// The first answer after such a parcel.
    AdoptingAnswer,
}

/// What happens to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Accident {
    /// All connections end: the process was killed.
    Killed,
    /// Nothing comes back any more, what is sent there is taken: the process was stopped.
    Stopped,
    /// Nothing goes either way, and nobody new is answered.
    Partitioned,
    /// It comes late, and all after it.
    Delayed,
    /// Its header makes no sense.
    Corrupted,
    /// Its header is of another version.
    OfAnotherVersion,
    /// Half of it comes, then the connection ends.
    Halved,
}

pub const STEPS: [Step; 8] = [
    Step::Hello,
    Step::Welcome,
    Step::PulseThere,
    Step::PulseBack,
    Step::Parcel,
    Step::Answer,
    Step::AdoptingParcel,
    Step::AdoptingAnswer,
];

pub const ACCIDENTS: [Accident; 7] = [
    Accident::Killed,
    Accident::Stopped,
    Accident::Partitioned,
    Accident::Delayed,
    Accident::Corrupted,
    Accident::OfAnotherVersion,
    Accident::Halved,
];

/// Stands between two ranks.
pub struct Wire {
    pub address: SocketAddr,
    state: Arc<State>,
    _tasks: JoinSet<()>,
}

struct State {
    step: Step,
    accident: Accident,
    /// The next such frame has it.
    armed: AtomicBool,
    /// It has happened.
    happened: AtomicBool,
    /// It lasts, until it is over.
    lasts: AtomicBool,
    /// A parcel that adopts has passed, and no answer since.
    adopting: AtomicBool,
}

impl Wire {
    pub async fn to(target: SocketAddr, step: Step, accident: Accident) -> Wire {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let unset = || AtomicBool::new(false);
        let state =
            State { step, accident, armed: unset(), happened: unset(), lasts: unset(), adopting: unset() };
        let state = Arc::new(state);
        let mut tasks = JoinSet::new();
        tasks.spawn(serve(listener, target, state.clone()));
        Wire { address, state, _tasks: tasks }
    }

    /// From now on, the next frame of the step has the accident.
    pub fn arm(&self) {
        self.state.armed.store(true, Ordering::SeqCst);
    }

    pub fn has_happened(&self) -> bool {
        self.state.happened.load(Ordering::SeqCst)
    }

    /// What lasted is over.
    pub fn repair(&self) {
        self.state.lasts.store(false, Ordering::SeqCst);
    }
}

async fn serve(listener: TcpListener, target: SocketAddr, state: Arc<State>) {
    let mut connections = JoinSet::new();
    while let Ok((client, _)) = listener.accept().await {
        let state = state.clone();
        connections.spawn(async move {
            while state.silent_to_new() {
                sleep(LOOK).await;
            }
            let Ok(server) = TcpStream::connect(target).await else { return };
            for socket in [&client, &server] {
                socket.set_nodelay(true).unwrap();
            }
            let ((from_client, to_client), (from_server, to_server)) =
                (client.into_split(), server.into_split());
            tokio::select! {
                () = pump(from_client, to_server, true, &state) => {}
                () = pump(from_server, to_client, false, &state) => {}
                () = state.cut() => {}
            }
        });
    }
}

impl State {
    fn silent_to_new(&self) -> bool {
        self.lasts.load(Ordering::SeqCst) && self.accident == Accident::Partitioned
    }

    /// Whether bytes of this direction stay where they are.
    fn holds(&self, there: bool) -> bool {
        let direction = match self.accident {
            Accident::Partitioned => true,
            Accident::Stopped => !there,
            _ => false,
        };
        direction && self.lasts.load(Ordering::SeqCst)
    }

    /// Ends when the connections that are there now are to end.
    async fn cut(&self) {
        if self.accident != Accident::Killed || self.happened.load(Ordering::SeqCst) {
            std::future::pending::<()>().await;
        }
        while !self.happened.load(Ordering::SeqCst) {
            sleep(LOOK).await;
        }
    }

    /// Whether this frame has the accident; only one has.
    fn hits(&self, header: &[u8; HEADER], there: bool) -> bool {
        let (kind, adopts) = (header[6], header[7] & 1 == 1);
        let adopting = matches!(kind, 5 | 6) && self.adopting.swap(kind == 5 && adopts, Ordering::SeqCst);
        let step = match (kind, there) {
            (1, _) => Step::Hello,
            (2, _) => Step::Welcome,
            (4, true) => Step::PulseThere,
            (4, false) => Step::PulseBack,
            (5, _) if adopts => Step::AdoptingParcel,
            (5, _) => Step::Parcel,
            (6, _) if adopting => Step::AdoptingAnswer,
            (6, _) => Step::Answer,
            _ => return false,
        };
        step == self.step && self.armed.swap(false, Ordering::SeqCst)
    }
}

async fn pump(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, there: bool, state: &State) {
    loop {
        let mut header = [0; HEADER];
        if from.read_exact(&mut header).await.is_err() {
            return;
        }
        let length = u32::from_le_bytes([header[20], header[21], header[22], header[23]]);
        let mut payload = vec![0; length as usize];
        if from.read_exact(&mut payload).await.is_err() {
            return;
        }
        let hit = state.hits(&header, there);
        let mut frame = [&header[..], &payload].concat();
        if hit {
            state.happened.store(true, Ordering::SeqCst);
            match state.accident {
                Accident::Killed => return,
                Accident::Stopped | Accident::Partitioned => state.lasts.store(true, Ordering::SeqCst),
                Accident::Delayed => sleep(DELAY).await,
                Accident::Corrupted => frame[..8].iter_mut().for_each(|byte| *byte ^= 0x55),
                Accident::OfAnotherVersion => frame[4] ^= 0x40,
                Accident::Halved => frame.truncate(frame.len() / 2),
            }
        }
        while state.holds(there) {
            sleep(LOOK).await;
        }
        if to.write_all(&frame).await.is_err() || (hit && state.accident == Accident::Halved) {
            return;
        }
    }
}
