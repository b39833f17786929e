//! `/health`, `/ready` and `/metrics`.

use crate::Operator;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::{Router, routing::get};
use socket2::{Domain, Socket, Type};
use std::io::{Error, ErrorKind, Result};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use tokio::net::TcpListener;

const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
/// Connections that may wait to be taken.
const BACKLOG: i32 = 128;

/// Both IP versions where the machine has both.
pub fn bind(port: u16) -> Result<TcpListener> {
    bind_first(&[Ipv6Addr::UNSPECIFIED.into(), Ipv4Addr::UNSPECIFIED.into()], port)
}

/// Answers on `listener` until dropped.
pub async fn serve(listener: TcpListener, operator: Operator) -> Result<()> {
    let router = Router::new()
        .route("/health", get(report_health))
        .route("/ready", get(report_readiness))
        .route("/metrics", get(report_metrics))
        .with_state(operator);
    axum::serve(listener, router).await
}

/// The first of the addresses that this machine has; any other trouble than having none of that kind is told.
fn bind_first(addresses: &[IpAddr], port: u16) -> Result<TcpListener> {
    let mut last = Error::from(ErrorKind::AddrNotAvailable);
    for address in addresses {
        match listen(SocketAddr::new(*address, port)) {
            Err(error) if is_lacking(&error) => last = error,
            done => return done,
        }
    }
    Err(last)
}

/// A machine without IPv6 has no such sockets at all, or none of its addresses.
fn is_lacking(error: &Error) -> bool {
    // EAFNOSUPPORT has no ErrorKind.
    error.kind() == ErrorKind::AddrNotAvailable || error.raw_os_error() == Some(97)
}

fn listen(address: SocketAddr) -> Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
    if address.is_ipv6() {
        // The kernel may be set to keep IPv4 out (net.ipv6.bindv6only).
        socket.set_only_v6(false)?;
    }
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    TcpListener::from_std(socket.into())
}

/// 200 `ok`, or 503 and a line for each part that is stuck: a restart is then the best that can be done.
async fn report_health(State(operator): State<Operator>) -> (StatusCode, String) {
    verdict(operator.health.stuck())
}

/// As `/health`, and 503 when a restart would not help: the installed CRD is another one than this operator needs.
async fn report_readiness(State(operator): State<Operator>) -> (StatusCode, String) {
    verdict(operator.definition.trouble().into_iter().chain(operator.health.stuck()).collect())
}

fn verdict(troubles: Vec<String>) -> (StatusCode, String) {
    if troubles.is_empty() {
        return (StatusCode::OK, "ok\n".to_owned());
    }
    (StatusCode::SERVICE_UNAVAILABLE, troubles.join("\n") + "\n")
}

async fn report_metrics(State(operator): State<Operator>) -> impl IntoResponse {
    ([(header::CONTENT_TYPE, OPENMETRICS)], operator.metrics.text())
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::net::TcpStream;

    /// From the range for documentation, so no machine has it.
    const NOWHERE: IpAddr = IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1));

    #[tokio::test]
    async fn ipv4_is_answered_with_and_without_ipv6() {
        for addresses in [
            &[Ipv6Addr::UNSPECIFIED.into(), Ipv4Addr::UNSPECIFIED.into()][..],
            &[NOWHERE, Ipv4Addr::UNSPECIFIED.into()],
        ] {
            let listener = bind_first(addresses, 0).unwrap();
            let port = listener.local_addr().unwrap().port();
            let (_, connected) =
                tokio::join!(listener.accept(), TcpStream::connect((Ipv4Addr::LOCALHOST, port)));
            connected.unwrap();
        }
    }

    #[tokio::test]
    async fn a_port_that_is_taken_is_no_lack_of_addresses() {
        let taken = bind(0).unwrap();
        let port = taken.local_addr().unwrap().port();
        assert_eq!(bind(port).unwrap_err().kind(), ErrorKind::AddrInUse);
    }
}
