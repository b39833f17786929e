//! Stands between two ranks, and can be told to misbehave.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

/// What a proxy does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Mode {
    Forward,
    /// Bytes stay where they are, as if packets were dropped or the process stopped.
    Freeze,
    /// The next bytes come damaged.
    Corrupt,
    /// Only half of the next bytes come, then nothing more.
    Halve,
    /// All connections end, and no new ones come about.
    Cut,
    /// The proxy is gone.
    Over,
}

const MODES: [Mode; 6] = [Mode::Forward, Mode::Freeze, Mode::Corrupt, Mode::Halve, Mode::Cut, Mode::Over];

pub struct Proxy {
    pub address: SocketAddr,
    mode: Arc<AtomicU8>,
}

impl Proxy {
    pub fn to(target: SocketAddr) -> Proxy {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let mode = Arc::new(AtomicU8::new(Mode::Forward as u8));
        let seen = mode.clone();
        std::thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                match now(&seen) {
                    Mode::Over => return,
                    Mode::Cut => continue,
                    _ => {}
                }
                let Ok(server) = TcpStream::connect(target) else { continue };
                for (from, to) in [(&client, &server), (&server, &client)] {
                    let (from, to) = (from.try_clone().unwrap(), to.try_clone().unwrap());
                    let seen = seen.clone();
                    std::thread::spawn(move || pump(from, to, &seen));
                }
            }
        });
        Proxy { address, mode }
    }

    pub fn set(&self, mode: Mode) {
        self.mode.store(mode as u8, Ordering::SeqCst);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.set(Mode::Over);
        drop(TcpStream::connect(self.address));
    }
}

fn now(mode: &AtomicU8) -> Mode {
    MODES[usize::from(mode.load(Ordering::SeqCst))]
}

fn pump(mut from: TcpStream, mut to: TcpStream, mode: &AtomicU8) {
    from.set_read_timeout(Some(Duration::from_millis(5))).unwrap();
    to.set_nodelay(true).unwrap();
    let mut bytes = [0; 4096];
    let mut silent = false;
    loop {
        let read = match (from.read(&mut bytes), now(mode)) {
            (_, Mode::Over | Mode::Cut) => break,
            (Err(error), _) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                continue;
            }
            (Err(_) | Ok(0), _) => break,
            (Ok(count), _) => count,
        };
        while now(mode) == Mode::Freeze {
            std::thread::sleep(Duration::from_millis(5));
        }
        let mut out = &mut bytes[..read];
        match now(mode) {
            Mode::Corrupt => out.iter_mut().for_each(|byte| *byte ^= 0x55),
            Mode::Halve => {
                out = &mut out[..read / 2];
                silent = true;
            }
            _ => {}
        }
        if to.write_all(out).is_err() {
            break;
        }
        while silent && !matches!(now(mode), Mode::Over | Mode::Cut) {
            // Taken back, the connection is of no more use all the same: bytes are lost.
            if now(mode) == Mode::Forward {
                break;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        if silent {
            break;
        }
    }
    let _ = from.shutdown(Shutdown::Both);
    let _ = to.shutdown(Shutdown::Both);
}
