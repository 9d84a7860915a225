//! A relay that grants what it is asked for, and then does what it is told to.

use std::io::{Read as _, Write as _};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use parallel_transfer::net::dial::Dialer;
use parallel_transfer::net::host_key::HostKey;
use parallel_transfer::net::{Listener, Stream, relay};
use parallel_transfer::protocol::v2::{MAGIC, request};
use parallel_transfer::protocol::{Answer, Credential, Features, Reply, Request, Status};
use parallel_transfer::stop::Stop;

use super::fake_server::{frame, opened};
use super::*;

/// What it does once it has granted.
#[derive(Debug, Clone)]
pub enum Then {
    /// Passes on to this port, whoever was asked for.
    PassOn(u16),
    Close,
    /// Nothing, and keeps the connection.
    Silent,
    /// Says this, in clear.
    Say(Vec<u8>),
    /// Does not grant, but says this and closes.
    Refuse(&'static str),
}

/// The relay. It goes on until the test's process ends.
pub struct FakeRelay {
    pub port: u16,
    shown: Arc<Mutex<Vec<Credential>>>,
}

impl FakeRelay {
    pub fn start(then: Then) -> Self {
        let (listener, key) = (Listener::bind(Some([127, 0, 0, 1].into()), 0, None).unwrap(), HostKey::for_one_job().unwrap());
        let relay = Self { port: listener.address().unwrap().port(), shown: Arc::default() };
        let shown = Arc::clone(&relay.shown);
        thread::spawn(move || {
            let (listener, key) = (Arc::new(listener), Arc::new(key));
            while let Ok(Some((socket, _))) = listener.accept(&Stop::new().unwrap()) {
                let stream = listener.stream(socket, PATIENCE).unwrap();
                let (shown, key, then) = (Arc::clone(&shown), Arc::clone(&key), then.clone());
                // Whoever is let down may go away at any time.
                thread::spawn(move || serve(stream, &key, &shown, &then).unwrap_or_default());
            }
        });
        relay
    }

    /// What it was shown so far.
    pub fn shown(&self) -> Vec<Credential> {
        self.shown.lock().unwrap().clone()
    }
}

fn serve(mut stream: Stream, key: &HostKey, shown: &Mutex<Vec<Credential>>, then: &Then) -> std::io::Result<()> {
    let (deadline, stop) = (Instant::now() + PATIENCE, Stop::new().unwrap());
    stream.start_tls_server(&key.server(), &[], deadline).map_err(std::io::Error::other)?;
    let (mut inbox, mut magic) = (Vec::new(), MAGIC);
    stream.read_exact(&mut magic)?;
    loop {
        let Some((request, len)) = request::decode(&inbox).expect("what our client says") else {
            let mut bytes = [0; 4096];
            match stream.read(&mut bytes)? {
                0 => return Ok(()),
                len => inbox.extend_from_slice(&bytes[..len]),
            }
            continue;
        };
        match (request, then) {
            (Request::Hello { .. }, _) => stream.write_all(&frame(&Reply::Welcome { version: 2, features: Features::BLAKE3 }))?,
            (Request::Open(open), _) => {
                shown.lock().unwrap().push(open.credential);
                stream.write_all(&frame(&opened(b"/".to_vec())))?;
            }
            (_, Then::Refuse(why)) => return stream.write_all(&frame(&Reply::Refused((*why).to_owned()))),
            _ => break,
        }
        inbox.drain(..len);
    }
    stream.write_all(&frame(&Reply::Answer(Answer { status: Status::Stored, reason: String::new() })))?;
    let first = stream.end_tls(deadline, &stop).map_err(std::io::Error::other)?;
    match then {
        Then::PassOn(port) => {
            let address = SocketAddr::from(([127, 0, 0, 1], *port));
            let server = Dialer::to_addresses(vec![address], PATIENCE, Duration::ZERO).dial(&stop).unwrap();
            relay::join(stream.handle(), server.handle(), first, (1 << 16, PATIENCE), &mut |_| Ok(()))
        }
        Then::Silent => loop {
            thread::park();
        },
        Then::Say(bytes) => {
            stream.write_all(bytes)?;
            // Until it is closed over there.
            while let Ok(1..) = stream.read(&mut [0; 4096]) {}
            Ok(())
        }
        Then::Close | Then::Refuse(_) => Ok(()),
    }
}
