//! The operator and a real API server; one binary, so that all of it shares one API server.

mod admission;
mod capacity;
mod crash;
mod endpoints;
mod experts;
mod figures;
mod front_door;
mod heal;
mod leader;
mod reconcile;
mod rights;
mod silence;
mod stale;
mod status_events;
