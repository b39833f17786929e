//! Who may take part.

use super::super::hello::Role;
use super::super::tls::Guard;
use super::super::wire::{Broken, until};
use super::map;
use super::ranks::{LIMIT, Made, STRANGER, World};
use coterie_api::expert_report::PeerState;
use coterie_api::name::EXCHANGE_TLS_NAME;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::time::Instant;

/// Signs certificates of ranks.
pub struct Authority {
    pem: String,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    pub fn new() -> Authority {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(vec![]).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let pem = params.self_signed(&key).unwrap().pem();
        Authority { pem, issuer: Issuer::new(params, key) }
    }

    /// A folder as the operator mounts it.
    pub fn write(&self, folder: &Path) {
        self.write_for(folder, EXCHANGE_TLS_NAME, &[self]);
    }

    /// A certificate for `name`, where `trusted` authorities are trusted.
    pub fn write_for(&self, folder: &Path, name: &str, trusted: &[&Authority]) {
        let key = KeyPair::generate().unwrap();
        let certificate =
            CertificateParams::new(vec![name.to_owned()]).unwrap().signed_by(&key, &self.issuer).unwrap();
        let authorities: String = trusted.iter().map(|authority| authority.pem.as_str()).collect();
        for (file, text) in
            [("ca.crt", authorities), ("tls.crt", certificate.pem()), ("tls.key", key.serialize_pem())]
        {
            std::fs::write(folder.join(file), text).unwrap();
        }
    }
}

/// One handshake between the folders of a client and a server, and a byte each way.
fn meet(client: &Path, server: &Path) -> Result<(), String> {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let guard = Guard::new(Some(server)).unwrap();
    let serving = std::thread::spawn(move || -> Result<(), Broken> {
        let wait = &mut until(Instant::now() + LIMIT, || false);
        let mut wire = guard.server(listener.accept().unwrap().0, wait)?;
        let mut byte = [0];
        wire.fill(&mut byte, wait)?;
        wire.write(&byte, &[], wait)
    });
    let speak = || -> Result<(), Broken> {
        let wait = &mut until(Instant::now() + LIMIT, || false);
        let socket = TcpStream::connect(address).map_err(Broken::Io)?;
        let mut wire = Guard::new(Some(client)).unwrap().client(socket).map_err(Broken::Io)?;
        wire.write(b"x", &[], wait)?;
        wire.fill(&mut [0], wait)
    };
    let spoken = speak();
    let served = serving.join().unwrap();
    served.map_err(|error| format!("server: {error}"))?;
    spoken.map_err(|error| format!("client: {error}"))
}

#[test]
fn only_who_has_a_certificate_of_the_authority_for_the_name_takes_part() {
    let folder = |issuer: &Authority, name: &str, trusted: &[&Authority]| {
        let dir = tempfile::tempdir().unwrap();
        issuer.write_for(dir.path(), name, trusted);
        dir
    };
    let (ours, theirs) = (Authority::new(), Authority::new());
    let rank = folder(&ours, EXCHANGE_TLS_NAME, &[&ours]);
    assert_eq!(meet(rank.path(), rank.path()), Ok(()));
    let stranger = folder(&theirs, EXCHANGE_TLS_NAME, &[&ours]);
    assert!(meet(stranger.path(), rank.path()).is_err(), "signed by another");
    assert!(meet(rank.path(), stranger.path()).is_err());
    let other_name = folder(&ours, "operator.coterie.dev", &[&ours]);
    assert!(meet(other_name.path(), rank.path()).unwrap_err().contains("server"), "for another name");
    assert!(meet(rank.path(), other_name.path()).is_err());
    // While authorities change, both are trusted.
    let before = folder(&ours, EXCHANGE_TLS_NAME, &[&ours, &theirs]);
    let after = folder(&theirs, EXCHANGE_TLS_NAME, &[&theirs, &ours]);
    assert_eq!(meet(before.path(), after.path()), Ok(()));
    assert_eq!(meet(after.path(), before.path()), Ok(()));
}

#[test]
fn a_folder_that_is_of_no_use_is_refused_with_its_reason() {
    let dir = tempfile::tempdir().unwrap();
    let refused = |file: &str, text: &str| {
        Authority::new().write(dir.path());
        std::fs::write(dir.path().join(file), text).unwrap();
        Guard::new(Some(dir.path())).err().unwrap()
    };
    assert!(refused("ca.crt", "").contains("ca.crt is of no use: it has no certificate"));
    assert!(refused("tls.crt", "x").contains("tls.crt is of no use"));
    assert!(refused("tls.key", "x").contains("tls.key is of no use"));
    let other_key = KeyPair::generate().unwrap().serialize_pem();
    assert!(refused("tls.key", &other_key).contains("tls.crt is of no use"), "a key of another certificate");
    std::fs::remove_file(dir.path().join("tls.key")).unwrap();
    assert!(Guard::new(Some(dir.path())).err().unwrap().contains("cannot be read"));
}

#[test]
fn a_plain_connection_to_a_protected_rank_is_refused() {
    let mut world = World::new(&map(), Made { tls: true, ..Made::default() });
    assert!(world.call(1, STRANGER, Role::Parcels).is_none());
    world.until_all_alive();
    world.forward(0, 0, &[2, 3], 2);
}

#[test]
fn certificates_change_while_ranks_exchange() {
    let mut world = World::new(&map(), Made { tls: true, ..Made::default() });
    world.until_all_alive();
    Authority::new().write(world.dir.path());
    let end = Instant::now() + std::time::Duration::from_millis(1200);
    while Instant::now() < end {
        assert_eq!(world.forward(0, 0, &[2, 3], 2), 0, "connections that are there go on");
    }
    // A rank that comes later has only the new one, and is let in.
    world.kill(1);
    world.until_state(0, 1, PeerState::Left);
    world.restart(1, &map());
    world.until_all_alive();
    assert_eq!(world.forward(0, 0, &[2, 3], 2), 0);
}
