//! One who speaks with a receiver that has accounts frame by frame, in TLS.

use std::io::{Read, Write as _};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};

use parallel_transfer::digest::Checksum;
use parallel_transfer::net::dial::Dialer;
use parallel_transfer::net::{Stream, tls};
use parallel_transfer::protocol::v2::{MAGIC, VERSIONS, reply, request};
use parallel_transfer::protocol::{Credential, Features, Open, Purpose, Reply, Secret, Token};
use parallel_transfer::stop::Stop;

use super::accounts::Service;
use super::*;

/// One connection.
pub struct Guest {
    pub stream: Stream,
    inbox: Vec<u8>,
}

impl Guest {
    /// Connects to a port, which may be that of a relay, and greets; `None` where that is cut off.
    pub fn try_greeted(service: &Service, port: u16) -> Option<Self> {
        Self::try_greeted_by(&service.host_key, port)
    }

    /// The same of any receiver with this key.
    pub fn try_greeted_by(host_key: &str, port: u16) -> Option<Self> {
        let key = tls::Client::pinned(host_key.parse().unwrap()).unwrap();
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        Self::try_greeted_over(&Dialer::to_addresses(vec![address], PATIENCE, Duration::ZERO).with_tls(Some(key)))
    }

    /// The same of whoever a dialer leads to.
    pub fn try_greeted_over(dialer: &Dialer) -> Option<Self> {
        let mut guest = Self { stream: dialer.dial(&Stop::new().unwrap()).ok()?, inbox: Vec::new() };
        let mut hello = MAGIC.to_vec();
        request::encode_hello(&mut hello, VERSIONS, Features::OURS);
        matches!(guest.ask(&hello), Some(Reply::Welcome { .. })).then_some(guest)
    }

    pub fn greeted(service: &Service) -> Self {
        Self::try_greeted(service, service.recv.port).unwrap()
    }

    /// Logs in with the right password, and opens a job in the folder `in`.
    pub fn opened(service: &Service, name: &str, token: Token) -> Self {
        let mut guest = Self::greeted(service);
        let reply = guest.ask(&open_as(name, &format!("pw of {name}"), token));
        assert!(matches!(reply, Some(Reply::Opened { .. })), "{reply:?}");
        guest
    }

    /// Joins a job; says why not if it may not.
    pub fn joined(service: &Service, port: u16, token: Token) -> Result<Self, String> {
        let mut guest = Self::try_greeted(service, port).unwrap();
        guest.send(&join(token));
        match guest.reply() {
            Some(Reply::Answer(_)) => Ok(guest),
            Some(Reply::Refused(why)) => Err(why),
            other => panic!("{other:?}"),
        }
    }

    /// Says something; whoever refuses may close before all is said.
    pub fn send(&mut self, bytes: &[u8]) {
        let _ = self.stream.write_all(bytes);
    }

    pub fn ask(&mut self, bytes: &[u8]) -> Option<Reply> {
        self.send(bytes);
        self.reply()
    }

    /// The next reply but heartbeats; none at the connection's end.
    pub fn reply(&mut self) -> Option<Reply> {
        next_reply(&mut self.stream, &mut self.inbox)
    }

    /// Why it is refused, which must be the next that is said.
    pub fn refusal(&mut self) -> String {
        match self.reply() {
            Some(Reply::Refused(why)) => why,
            other => panic!("no refusal but {other:?}"),
        }
    }
}

pub fn new_token() -> Token {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    let mut token = [7; 32];
    token[..8].copy_from_slice(&NEXT.fetch_add(1, Ordering::Relaxed).to_be_bytes());
    Token(token)
}

/// The frame that opens a job in the folder `in`.
pub fn open_as(name: &str, password: &str, token: Token) -> Vec<u8> {
    open_for(Purpose::Bring, name, password, token)
}

/// The frame that opens a job for this.
pub fn open_for(purpose: Purpose, name: &str, password: &str, token: Token) -> Vec<u8> {
    let (user, password) = (name.as_bytes().to_vec(), Secret::from(password.as_bytes().to_vec()));
    let credential = Credential::Password { user, password };
    let open = Open { directory: b"in".to_vec(), credential, checksum: Checksum::Xxh3, ..Open::plain(token, purpose) };
    let mut bytes = Vec::new();
    request::encode_open(&mut bytes, &open);
    bytes
}

pub fn join(token: Token) -> Vec<u8> {
    let mut bytes = Vec::new();
    request::encode_join(&mut bytes, &token);
    bytes
}

/// The next reply but heartbeats, of which a part may be here; none at the connection's end.
pub fn next_reply(stream: &mut impl Read, inbox: &mut Vec<u8>) -> Option<Reply> {
    loop {
        if let Some((reply, len)) = reply::decode(inbox).unwrap() {
            inbox.drain(..len);
            if reply != Reply::Heartbeat {
                return Some(reply);
            }
            continue;
        }
        let mut bytes = [0; 4096];
        match stream.read(&mut bytes) {
            Ok(len @ 1..) => inbox.extend_from_slice(&bytes[..len]),
            _ => return None,
        }
    }
}
