//! The way to one other rank: two connections with one fate. On one this rank's engine sends parcels; on the other a
//! thread of the link's own sends signs of life, and ends both when none come back.

use super::frame::{HEADER, HELLO, Header, Kind, PULSE, REASON};
use super::hello::{Hello, Role, Versions};
use super::limits::Limits;
use super::shared::Shared;
use super::wire::{Broken, Closer, Wire, until};
use std::net::{TcpStream, ToSocketAddrs};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Between two signs of life.
pub const PULSE_EVERY: Duration = Duration::from_millis(100);
/// A rank that was not heard for so long is left out. Looked at after each of our signs of life, so that a rank that
/// hangs is left out after 350 to 450 ms.
pub const SILENCE: Duration = Duration::from_millis(350);
/// From connecting to a welcome.
pub const HANDSHAKE: Duration = Duration::from_secs(2);
/// A rank that answers too slowly is left alone for so long.
pub const SLOW_PAUSE: Duration = Duration::from_secs(5);
/// Before the second attempt to connect; doubled from attempt to attempt.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// The way to one other rank.
pub struct Link {
    rank: u16,
    now: Mutex<Now>,
}

#[derive(Default)]
struct Now {
    /// ExchangeCounts the pairs of connections.
    generation: u64,
    /// For the engine's thread to take.
    fresh: Option<Wire>,
    closers: Vec<Closer>,
    /// Why the engine's thread ended it, and for how long it is to rest.
    failed: Option<(String, Duration)>,
    forgotten: bool,
}

impl Link {
    /// Starts a thread that reaches `rank` and stays in touch, until the rank is forgotten.
    pub fn start(shared: &Arc<Shared>, rank: u16) -> std::io::Result<Arc<Link>> {
        let link = Arc::new(Link { rank, now: Mutex::default() });
        let (shared, own) = (shared.clone(), link.clone());
        std::thread::Builder::new().name(format!("exchange-to-{rank}")).spawn(move || own.live(&shared))?;
        Ok(link)
    }

    fn now(&self) -> MutexGuard<'_, Now> {
        self.now.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A connection for parcels that was made since the last call, and its number.
    pub fn take(&self) -> Option<(u64, Wire)> {
        let mut now = self.now();
        now.fresh.take().map(|wire| (now.generation, wire))
    }

    /// The connection of that number is of no more use. Nobody is sent to this rank from now on, and it is left alone
    /// for `rest`.
    pub fn fail(&self, shared: &Shared, generation: u64, why: &str, rest: Duration) {
        let mut now = self.now();
        if now.generation == generation && now.failed.is_none() {
            now.failed = Some((why.to_owned(), rest));
            shared.missed(self.rank, why);
            now.close();
        }
    }

    /// The rank is no longer part of the replica.
    pub fn forget(&self) {
        let mut now = self.now();
        now.forgotten = true;
        now.close();
    }

    fn live(&self, shared: &Shared) {
        let mut attempts = 0;
        while !self.over(shared) {
            let (why, rest) = match self.reach(shared) {
                Ok(mut wire) => {
                    attempts = 0;
                    let broken = self.stay_in_touch(shared, &mut wire);
                    self.failed(shared, &broken)
                }
                Err(broken) => (broken.to_string(), Duration::ZERO),
            };
            if self.over(shared) {
                break;
            }
            shared.missed(self.rank, &why);
            self.rest(shared, rest.max(pause(attempts, self.rank)));
            attempts += 1;
        }
    }

    fn over(&self, shared: &Shared) -> bool {
        shared.ended() || self.now().forgotten
    }

    fn rest(&self, shared: &Shared, time: Duration) {
        let end = Instant::now() + time;
        while let Some(left) = end.checked_duration_since(Instant::now()).filter(|_| !self.over(shared)) {
            shared.wait(left);
        }
    }

    /// Connects both ways in, and opens the link. The connection for signs of life.
    fn reach(&self, shared: &Shared) -> Result<Wire, Broken> {
        let address = shared.address(self.rank).ok_or(Broken::Ended)?;
        let (pulse, versions) = self.call(shared, &address, Role::Pulse)?;
        let (parcels, _) = self.call(shared, &address, Role::Parcels)?;
        let closers = vec![pulse.closer().map_err(Broken::Io)?, parcels.closer().map_err(Broken::Io)?];
        let mut now = self.now();
        let (generation, forgotten) = (now.generation + 1, now.forgotten);
        *now = Now { generation, fresh: Some(parcels), closers, failed: None, forgotten };
        drop(now);
        shared.reached(self.rank, versions);
        Ok(pulse)
    }

    /// One connection, up to the welcome.
    fn call(&self, shared: &Shared, address: &str, role: Role) -> Result<(Wire, Versions), Broken> {
        let deadline = Instant::now() + HANDSHAKE;
        let socket = connect(address).map_err(Broken::Io)?;
        let mut wire = shared.guard.client(socket).map_err(Broken::Io)?;
        let mut wait = until(deadline, || self.over(shared));
        let (from, to, versions) = (shared.own, self.rank, shared.versions());
        let hello = Hello { role, from, to, terms: shared.terms, versions };
        let header = Header { kind: Kind::Hello, payload: HELLO as u32, ..Header::default() };
        wire.write(&header.encode(), &hello.encode(), &mut wait)?;
        let header = wire.header(&shared.limits, &mut wait)?;
        if header.kind == Kind::Refused {
            let mut reason = [0; REASON];
            let reason = &mut reason[..header.payload as usize];
            wire.fill(reason, &mut wait)?;
            return Err(Broken::Refused(String::from_utf8_lossy(reason).into_owned()));
        }
        header.expect(Kind::Welcome, "a welcome")?;
        let mut bytes = [0; HELLO];
        wire.fill(&mut bytes, &mut wait)?;
        let theirs = Hello::decode(&bytes)?;
        match hello.disagreement(&theirs) {
            Some(reason) => Err(Broken::Refused(reason)),
            None => Ok((wire, theirs.versions)),
        }
    }

    /// Sends signs of life for as long as they are answered.
    fn stay_in_touch(&self, shared: &Shared, wire: &mut Wire) -> Broken {
        let mut heard = Instant::now();
        let mut said = None;
        let mut frame = [0; HEADER + PULSE];
        let mut filled = 0;
        loop {
            if said.is_none_or(|said: Instant| said.elapsed() >= PULSE_EVERY) {
                let mut wait = until(heard + SILENCE, || self.over(shared));
                if let Err(broken) = wire.pulse(&shared.versions(), &mut wait) {
                    return broken;
                }
                said = Some(Instant::now());
            }
            let next = said.map_or(PULSE_EVERY, |said| PULSE_EVERY.saturating_sub(said.elapsed()));
            if let Err(error) = wire.read_for(next.max(Duration::from_millis(1))) {
                return Broken::Io(error);
            }
            match wire.read(&mut frame[filled..]) {
                Err(broken) => return broken,
                // Only after waiting for it, so that our own sleep is not taken for their silence.
                Ok(None) if heard.elapsed() >= SILENCE => return Broken::Silent(heard.elapsed()),
                Ok(None) => {}
                Ok(Some(count)) => filled += count,
            }
            if filled == frame.len() {
                filled = 0;
                match versions_in(&frame, &shared.limits) {
                    Err(broken) => return broken,
                    Ok(versions) => shared.heard(self.rank, versions),
                }
                heard = Instant::now();
            }
            if self.over(shared) {
                return Broken::Ended;
            }
        }
    }

    /// The connections broke: nobody is sent to this rank from now on. The reason, and how long to rest.
    fn failed(&self, shared: &Shared, broken: &Broken) -> (String, Duration) {
        let mut now = self.now();
        let (why, rest) = now.failed.take().unwrap_or_else(|| (broken.to_string(), Duration::ZERO));
        now.failed = Some((why.clone(), rest));
        shared.missed(self.rank, &why);
        now.close();
        (why, rest)
    }
}

impl Now {
    fn close(&mut self) {
        self.fresh = None;
        self.closers.drain(..).for_each(|closer| closer.close());
    }
}

/// What the other side's sign of life says.
fn versions_in(frame: &[u8; HEADER + PULSE], limits: &Limits) -> Result<Versions, Broken> {
    let (mut header, mut versions) = ([0; HEADER], [0; PULSE]);
    header.copy_from_slice(&frame[..HEADER]);
    versions.copy_from_slice(&frame[HEADER..]);
    limits.check(&Header::decode(&header)?.expect(Kind::Pulse, "a pulse")?)?;
    Ok(Versions::decode(&versions))
}

/// The first address of the name that answers.
fn connect(address: &str) -> std::io::Result<TcpStream> {
    let mut last = None;
    for address in address.to_socket_addrs()? {
        match TcpStream::connect_timeout(&address, HANDSHAKE / 2) {
            Ok(socket) => return Ok(socket),
            Err(error) => last = Some(error),
        }
    }
    Err(last.unwrap_or_else(|| std::io::Error::other("the name has no address")))
}

/// Before the next attempt. Ranks differ a little, so that they do not all call at the same moment.
fn pause(attempts: u32, rank: u16) -> Duration {
    let whole = FIRST_PAUSE.saturating_mul(1 << attempts.min(10)).min(LONGEST_PAUSE);
    whole - whole / 4 * (u32::from(rank).wrapping_mul(2_654_435_761) >> 16) / (1 << 16)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attempts_become_rarer_and_ranks_differ() {
        assert!(pause(0, 0) <= FIRST_PAUSE && pause(0, 7) >= FIRST_PAUSE * 3 / 4);
        assert_eq!(pause(30, 0), LONGEST_PAUSE);
        assert_ne!(pause(9, 1), pause(9, 2));
    }
}
