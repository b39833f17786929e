//! TCP ports for programs that cannot be asked which one they got.

use anyhow::{Context, Result};
use std::net::TcpListener;
use std::ops::Range;
use std::sync::atomic::{AtomicU16, Ordering};

/// Below those that the kernel gives to whoever asks for any (`net.ipv4.ip_local_port_range`): no connection of another
/// test takes one before it is used.
const PORTS: Range<u16> = 20_000..30_000;

/// A free TCP port of 127.0.0.1.
pub fn free_port() -> Result<u16> {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    // Two test binaries begin at different ones.
    let first = std::process::id().wrapping_mul(97);
    let mut ports = PORTS.map(|_| {
        let turn = first.wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed).into());
        PORTS.start + (turn % PORTS.len() as u32) as u16
    });
    ports.find(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok()).context("no free TCP port")
}
