//! What other ranks ask of this one: a thread for each connection, which reads, has computed, and writes.

use super::desk::{Desk, Done, Order, Outcome};
use super::frame::{HEADER, HELLO, Header, Kind, PULSE};
use super::hello::{Hello, Role};
use super::limits::Limits;
use super::link::HANDSHAKE;
use super::parcel_frame;
use super::shared::Shared;
use super::wire::{Broken, Closer, Wait, Wire, until};
use coterie_engine::moe::exchange::Parcel;
use std::collections::HashMap;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::sync_channel;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Connections that have not said who they are; more are closed at once.
const STRANGERS: usize = 64;
/// No part of a frame may be waited for so long once its first byte is there.
const FRAME: Duration = Duration::from_secs(10);
/// A connection for signs of life on which none come is closed.
const QUIET: Duration = Duration::from_secs(10);
/// After the system could not give us a connection.
const ACCEPT_RETRY: Duration = Duration::from_millis(100);

/// The connections of others to this rank. Of each rank there is one for parcels and one for signs of life: a new one
/// ends the one before, which nobody uses any more.
pub struct Inbound {
    shared: Arc<Shared>,
    desk: Arc<Desk>,
    strangers: AtomicUsize,
    known: Mutex<HashMap<(u16, Role), Known>>,
    met: AtomicU64,
    /// The last complaint, so that one who comes again and again is logged once.
    complaint: Mutex<String>,
}

/// A connection, and its number among all.
struct Known {
    number: u64,
    closer: Closer,
}

impl Inbound {
    /// Nobody yet.
    pub fn new(shared: Arc<Shared>, desk: Arc<Desk>) -> Arc<Inbound> {
        let (strangers, met) = (AtomicUsize::new(0), AtomicU64::new(0));
        let (known, complaint) = (Mutex::default(), Mutex::default());
        Arc::new(Inbound { shared, desk, strangers, met, known, complaint })
    }

    /// Takes connections until the end.
    pub fn accept(self: &Arc<Inbound>, listener: &TcpListener) {
        while !self.shared.ended() {
            match listener.accept() {
                Ok((socket, from)) if !self.shared.ended() => self.admit(socket, from),
                Ok(_) => {}
                Err(error) => {
                    tracing::warn!(%error, "a connection of the exchange could not be accepted");
                    self.shared.wait(ACCEPT_RETRY);
                }
            }
        }
    }

    /// Ends every connection.
    pub fn close(&self) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.drain().for_each(|(_, known)| known.closer.close());
    }

    fn admit(self: &Arc<Inbound>, socket: TcpStream, from: SocketAddr) {
        if self.strangers.fetch_add(1, Ordering::Relaxed) >= STRANGERS {
            self.strangers.fetch_sub(1, Ordering::Relaxed);
            return;
        }
        let inbound = self.clone();
        let thread = std::thread::Builder::new().name("exchange-from".to_owned());
        let started = thread.spawn(move || {
            let met = inbound.meet(socket);
            inbound.strangers.fetch_sub(1, Ordering::Relaxed);
            let ended = met.and_then(|(wire, theirs, number)| {
                let ended = inbound.serve(wire, theirs.role);
                inbound.forget((theirs.from, theirs.role), number);
                ended
            });
            if let Err(broken) = ended {
                inbound.complain(from, &broken);
            }
        });
        if let Err(error) = started {
            self.strangers.fetch_sub(1, Ordering::Relaxed);
            tracing::warn!(%error, "no thread for a connection of the exchange");
        }
    }

    /// Finds out who calls and whether we go together. The number of the connection.
    fn meet(&self, socket: TcpStream) -> Result<(Wire, Hello, u64), Broken> {
        let shared = &self.shared;
        let mut wait = until(Instant::now() + HANDSHAKE, || shared.ended());
        let mut wire = shared.guard.server(socket, &mut wait)?;
        wire.header(&shared.limits, &mut wait)?.expect(Kind::Hello, "a hello")?;
        let mut bytes = [0; HELLO];
        wire.fill(&mut bytes, &mut wait)?;
        let theirs = Hello::decode(&bytes)?;
        let versions = shared.versions();
        let ours = Hello { from: shared.own, to: theirs.from, terms: shared.terms, versions, ..theirs };
        if let Some(reason) = ours.disagreement(&theirs) {
            wire.refuse(&reason, &mut wait)?;
            return Err(Broken::Refused(reason));
        }
        let closer = wire.closer().map_err(Broken::Io)?;
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let number = self.met.fetch_add(1, Ordering::Relaxed);
        if let Some(before) = known.insert((theirs.from, theirs.role), Known { number, closer }) {
            before.closer.close();
        }
        drop(known);
        let header = Header { kind: Kind::Welcome, payload: HELLO as u32, ..Header::default() };
        if let Err(broken) = wire.write(&header.encode(), &ours.encode(), &mut wait) {
            self.forget((theirs.from, theirs.role), number);
            return Err(broken);
        }
        Ok((wire, theirs, number))
    }

    /// The connection is over.
    fn forget(&self, of: (u16, Role), number: u64) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.get(&of).is_some_and(|known| known.number == number) {
            known.remove(&of);
        }
    }

    fn serve(&self, wire: Wire, role: Role) -> Result<(), Broken> {
        match role {
            Role::Pulse => self.pulses(wire),
            Role::Parcels => self.parcels(wire),
        }
    }

    /// Answers signs of life. Never computes, and waits for nobody who does.
    fn pulses(&self, mut wire: Wire) -> Result<(), Broken> {
        // What they say of themselves reaches us as the answer to our own pulse.
        let mut theirs = [0; PULSE];
        loop {
            let mut wait = until(Instant::now() + QUIET, || self.shared.ended());
            wire.header(&self.shared.limits, &mut wait)?.expect(Kind::Pulse, "a pulse")?;
            wire.fill(&mut theirs, &mut wait)?;
            wire.pulse(&self.shared.versions(), &mut wait)?;
        }
    }

    /// Answers parcels, one after the other.
    fn parcels(&self, mut wire: Wire) -> Result<(), Broken> {
        let shared = &self.shared;
        let limits = &shared.limits;
        let (mut parcel, mut answer, mut head) = (Parcel::default(), Vec::new(), Vec::new());
        loop {
            let header = next_header(&mut wire, limits, &mut || go_on(shared))?;
            header.expect(Kind::Parcel, "a parcel")?;
            parcel_frame::read(&header, limits, &mut parcel, &mut head, |bytes| {
                wire.fill(bytes, &mut until(Instant::now() + FRAME, || shared.ended()))
            })?;
            if parcel.adopt {
                self.adopt(&parcel);
            }
            let (done, computed) = sync_channel(1);
            self.desk.put(Order { parcel, answer, done });
            let outcome;
            // A closed desk drops the order.
            Done { parcel, answer, outcome } = computed.recv().map_err(|_| Broken::Ended)?;
            self.reply(&mut wire, header.sequence, &parcel, &answer, outcome)?;
        }
    }

    /// Takes over what a parcel asks for. What cannot be is found missing when it is computed.
    fn adopt(&self, parcel: &Parcel) {
        for &(expert, _) in &parcel.experts {
            self.shared.adopt(parcel.layer, expert);
        }
    }

    fn reply(
        &self,
        wire: &mut Wire,
        sequence: u64,
        parcel: &Parcel,
        answer: &[u8],
        outcome: Outcome,
    ) -> Result<(), Broken> {
        let wait: Wait<'_> = &mut || go_on(&self.shared);
        match outcome {
            Outcome::Computed => {
                let (sends, payload) = (parcel.sends.len() as u32, answer.len() as u32);
                let header = Header { kind: Kind::Answer, sends, payload, sequence, ..Header::default() };
                wire.write(&header.encode(), answer, wait)
            }
            Outcome::NotHeld => {
                let missing = self.missing(parcel);
                let (experts, payload) = ((missing.len() / 2) as u16, missing.len() as u32);
                let header = Header { kind: Kind::Missing, experts, payload, sequence, ..Header::default() };
                wire.write(&header.encode(), &missing, wait)
            }
            Outcome::Failed => Err(Broken::Io(std::io::Error::other("computing a parcel panicked"))),
        }
    }

    /// The experts of a parcel that are not held, as bytes; all if that changed meanwhile.
    fn missing(&self, parcel: &Parcel) -> Vec<u8> {
        let held = |expert: u16| self.shared.host.holds(usize::from(parcel.layer), usize::from(expert));
        let some = parcel.experts.iter().any(|(expert, _)| !held(*expert));
        let named = parcel.experts.iter().filter(|(expert, _)| !some || !held(*expert));
        named.flat_map(|(expert, _)| expert.to_le_bytes()).collect()
    }

    /// Says why a connection ended, if it is worth a word.
    fn complain(&self, from: SocketAddr, broken: &Broken) {
        match broken {
            Broken::Closed | Broken::Ended => return,
            Broken::Frame(_) | Broken::Refused(_) => drop(self.shared.counts.refused.inc()),
            _ => {}
        }
        let complaint = format!("{} {broken}", from.ip());
        let mut last = self.complaint.lock().unwrap_or_else(PoisonError::into_inner);
        if *last != complaint {
            tracing::warn!(%from, why = %broken, "a connection of the exchange was ended");
            *last = complaint;
        }
    }
}

/// The next frame's header: its first byte may take any time, the rest may not.
fn next_header(wire: &mut Wire, limits: &Limits, idle: Wait<'_>) -> Result<Header, Broken> {
    let mut bytes = [0; HEADER];
    let begun = loop {
        match wire.read(&mut bytes)? {
            Some(count) => break count,
            None => idle()?,
        }
    };
    wire.fill(&mut bytes[begun..], &mut until(Instant::now() + FRAME, || false))?;
    let header = Header::decode(&bytes)?;
    limits.check(&header)?;
    Ok(header)
}

fn go_on(shared: &Shared) -> Result<(), Broken> {
    if shared.ended() { Err(Broken::Ended) } else { Ok(()) }
}
