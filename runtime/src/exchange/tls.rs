//! Mutual TLS: both ends show a certificate that an authority of the ModelDeployment signed for
//! [`EXCHANGE_TLS_NAME`], whatever their address. New files are for new connections; old ones go on.

use super::files::read_bounded;
use super::wire::{Duplex, Wire, prepare};
use coterie_api::name::EXCHANGE_TLS_NAME;
use rustls::client::{Resumption, verify_server_name};
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::server::{ParsedCertificate, WebPkiClientVerifier};
use rustls::{ClientConfig, ClientConnection, RootCertStore, ServerConfig, ServerConnection, StreamOwned};
use std::io;
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

/// Bytes of one of the files at most.
const FILE: u64 = 1 << 20;

/// How connections are protected.
pub struct Guard(Option<Folder>);

/// A folder with `ca.crt`, `tls.crt` and `tls.key`.
struct Folder {
    path: PathBuf,
    now: Mutex<Current>,
}

struct Current {
    files: Files,
    sides: Sides,
}

#[derive(PartialEq, Eq)]
struct Files {
    authorities: Vec<u8>,
    certificate: Vec<u8>,
    key: Vec<u8>,
}

#[derive(Clone)]
struct Sides {
    client: Arc<ClientConfig>,
    server: Arc<ServerConfig>,
    name: ServerName<'static>,
}

impl Guard {
    /// By the files in `folder`; without one, connections are plain.
    pub fn new(folder: Option<&Path>) -> Result<Guard, String> {
        let Some(path) = folder else { return Ok(Guard(None)) };
        let files = Files::read(path)?;
        let sides = files.sides(path)?;
        Ok(Guard(Some(Folder { path: path.to_owned(), now: Mutex::new(Current { files, sides }) })))
    }

    /// Whether connections are protected.
    pub fn is_on(&self) -> bool {
        self.0.is_some()
    }

    /// Looks at the files again. Says whether they were others; if they are of no use, the old ones go on.
    pub fn refresh(&self) -> Result<bool, String> {
        let Some(folder) = &self.0 else { return Ok(false) };
        let files = Files::read(&folder.path)?;
        if files == folder.now.lock().unwrap_or_else(PoisonError::into_inner).files {
            return Ok(false);
        }
        let sides = files.sides(&folder.path)?;
        *folder.now.lock().unwrap_or_else(PoisonError::into_inner) = Current { files, sides };
        Ok(true)
    }

    /// The side that connected. TLS' own handshake happens with the first bytes.
    pub fn client(&self, socket: TcpStream) -> io::Result<Wire> {
        prepare(&socket)?;
        let stream: Box<dyn Duplex> = match self.sides() {
            None => Box::new(socket.try_clone()?),
            Some(Sides { client, name, .. }) => {
                let connection = ClientConnection::new(client, name).map_err(io::Error::other)?;
                Box::new(StreamOwned::new(connection, socket.try_clone()?))
            }
        };
        Ok(Wire::new(socket, stream))
    }

    /// The side that was connected to, after TLS' own handshake. `wait` as in [`Wire::fill`].
    pub fn server(
        &self,
        socket: TcpStream,
        wait: super::wire::Wait<'_>,
    ) -> Result<Wire, super::wire::Broken> {
        use super::wire::Broken;
        prepare(&socket).map_err(Broken::Io)?;
        let mut clone = socket.try_clone().map_err(Broken::Io)?;
        let Some(Sides { server, name, .. }) = self.sides() else {
            return Ok(Wire::new(socket, Box::new(clone)));
        };
        let mut connection = ServerConnection::new(server).map_err(|e| Broken::Io(io::Error::other(e)))?;
        while connection.is_handshaking() {
            match connection.complete_io(&mut clone) {
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => wait()?,
                Err(error) => return Err(Broken::Io(error)),
            }
        }
        // The verifier has checked who signed it; the name is ours to check on this side.
        let certificate = connection.peer_certificates().and_then(<[_]>::first);
        let certificate =
            certificate.ok_or_else(|| Broken::Io(io::Error::other("no certificate was shown")))?;
        ParsedCertificate::try_from(certificate)
            .and_then(|parsed| verify_server_name(&parsed, &name))
            .map_err(|error| Broken::Io(io::Error::other(error)))?;
        Ok(Wire::new(socket, Box::new(StreamOwned::new(connection, clone))))
    }

    fn sides(&self) -> Option<Sides> {
        self.0.as_ref().map(|folder| folder.now.lock().unwrap_or_else(PoisonError::into_inner).sides.clone())
    }
}

impl Files {
    fn read(folder: &Path) -> Result<Files, String> {
        let read = |name| read_bounded(&folder.join(name), FILE);
        Ok(Files { authorities: read("ca.crt")?, certificate: read("tls.crt")?, key: read("tls.key")? })
    }

    fn sides(&self, folder: &Path) -> Result<Sides, String> {
        let wrong = |file: &str, error: &dyn std::fmt::Display| {
            format!(
                "{} is of no use: {error}; the operator replaces such certificates within a minute and tells so in an \
                 Event, and where it does not, delete the Secret that this folder is made from",
                folder.join(file).display()
            )
        };
        let certificates = |file: &str, pem: &[u8]| -> Result<Vec<CertificateDer<'static>>, String> {
            let all: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
            let all = all.map_err(|error| wrong(file, &error))?;
            if all.is_empty() { Err(wrong(file, &"it has no certificate")) } else { Ok(all) }
        };
        let mut roots = RootCertStore::empty();
        for authority in certificates("ca.crt", &self.authorities)? {
            roots.add(authority).map_err(|error| wrong("ca.crt", &error))?;
        }
        let (roots, chain) = (Arc::new(roots), certificates("tls.crt", &self.certificate)?);
        let key = PrivateKeyDer::from_pem_slice(&self.key).map_err(|error| wrong("tls.key", &error))?;
        let provider = Arc::new(ring::default_provider());
        let versions: &[_] = &[&rustls::version::TLS13];
        let name = ServerName::try_from(EXCHANGE_TLS_NAME).map_err(|error| wrong("tls.crt", &error))?;

        let mut client = ClientConfig::builder_with_provider(provider.clone())
            .with_protocol_versions(versions)
            .map_err(|error| wrong("tls.crt", &error))?
            .with_root_certificates(roots.clone())
            .with_client_auth_cert(chain.clone(), key.clone_key())
            .map_err(|error| wrong("tls.crt", &error))?;
        client.resumption = Resumption::disabled();
        let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider.clone())
            .build()
            .map_err(|error| wrong("ca.crt", &error))?;
        let mut server = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(versions)
            .map_err(|error| wrong("tls.crt", &error))?
            .with_client_cert_verifier(verifier)
            .with_single_cert(chain, key)
            .map_err(|error| wrong("tls.crt", &error))?;
        server.send_tls13_tickets = 0;
        Ok(Sides { client: Arc::new(client), server: Arc::new(server), name })
    }
}
