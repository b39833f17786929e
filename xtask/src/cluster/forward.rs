//! The one way from the host into the cluster: a port on the host's loopback, served by a small process that lives
//! in the cluster's network namespace. Its listening socket was made outside, so it still accepts there.

use std::fs::File;
use std::io;
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsRawFd, FromRawFd, RawFd};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};

use super::daemon::{Daemon, Mounts};
use super::place::Place;

/// The hidden subcommand that is the forwarder.
pub const SUBCOMMAND: &str = "__forward";

/// Takes `preferred` if it is free, so that a restarted cluster keeps its port, and any other free port if not.
///
/// The port is held from here on: nobody else can take it before the forwarder uses it.
pub fn listen(preferred: Option<u16>) -> Result<TcpListener> {
    let on = |port| TcpListener::bind((Ipv4Addr::LOCALHOST, port));
    let listener = match preferred.map(on) {
        Some(Ok(listener)) => Ok(listener),
        _ => on(0),
    };
    listener.context("there is no free port on 127.0.0.1")
}

/// Starts a forwarder from `listener` to `target` inside the cluster. Returns the port on the host.
pub fn start(place: &Place, network: &File, listener: TcpListener, target: SocketAddr) -> Result<u16> {
    let port = listener.local_addr()?.port();
    let program = std::env::current_exe().context("cannot find this program's own file")?;
    let fd = listener.as_raw_fd();
    let daemon = Daemon {
        name: &format!("forward-{port}"),
        program: &program,
        args: vec![SUBCOMMAND.into(), fd.to_string(), target.to_string()],
        network,
        mounts: Mounts::Host,
        inherit: Some(fd),
    };
    daemon.start(place)?;
    Ok(port)
}

/// The forwarder itself: `fd` is a listening socket it inherited.
pub fn serve(fd: RawFd, target: SocketAddr) -> Result<()> {
    // SAFETY: `start` passes the descriptor of a listener it made, and nothing else in this process uses it.
    let listener = unsafe { TcpListener::from_raw_fd(fd) };
    loop {
        match listener.accept() {
            Ok((client, _)) => {
                let work =
                    move || join(client, target).unwrap_or_else(|error| eprintln!("{target}: {error}"));
                spawn(work)?;
            }
            Err(error) => {
                // Out of descriptors, say: some connection will end.
                eprintln!("cannot accept: {error}");
                thread::sleep(Duration::from_millis(100));
            }
        }
    }
}

/// Copies both ways until both sides have closed. A target that does not answer closes the client's side.
fn join(client: TcpStream, target: SocketAddr) -> io::Result<()> {
    let server = TcpStream::connect_timeout(&target, Duration::from_secs(10))?;
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    let (client_again, server_again) = (client.try_clone()?, server.try_clone()?);
    spawn(move || copy(&server_again, &client_again))?;
    copy(&client, &server);
    Ok(())
}

/// Copies one way, then passes the end on. A broken connection is ended on both sides.
fn copy(mut from: &TcpStream, mut to: &TcpStream) {
    match io::copy(&mut from, &mut to) {
        Ok(_) => drop(to.shutdown(Shutdown::Write)),
        Err(_) => {
            let _ = from.shutdown(Shutdown::Both);
            let _ = to.shutdown(Shutdown::Both);
        }
    }
}

fn spawn(work: impl FnOnce() + Send + 'static) -> io::Result<()> {
    thread::Builder::new().stack_size(64 << 10).spawn(work).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::os::fd::IntoRawFd;

    #[test]
    fn the_earlier_port_is_kept_while_it_is_free() {
        let first = listen(None).unwrap();
        let port = first.local_addr().unwrap().port();
        let other = listen(Some(port)).unwrap().local_addr().unwrap().port();
        assert_ne!(other, port, "a taken port is not an error");
        drop(first);
        assert_eq!(listen(Some(port)).unwrap().local_addr().unwrap().port(), port);
    }

    #[test]
    fn bytes_and_half_closes_pass_both_ways() {
        let target = listen(None).unwrap();
        let to = target.local_addr().unwrap();
        let front = listen(None).unwrap();
        let address = front.local_addr().unwrap();
        let fd = front.into_raw_fd();
        thread::spawn(move || serve(fd, to));
        let echo = thread::spawn(move || {
            let (mut peer, _) = target.accept().unwrap();
            let mut question = String::new();
            peer.read_to_string(&mut question).unwrap();
            peer.write_all(question.to_uppercase().as_bytes()).unwrap();
        });
        let mut client = TcpStream::connect(address).unwrap();
        client.write_all(b"hello").unwrap();
        client.shutdown(Shutdown::Write).unwrap();
        let mut answer = String::new();
        client.read_to_string(&mut answer).unwrap();
        assert_eq!(answer, "HELLO");
        echo.join().unwrap();
    }
}
