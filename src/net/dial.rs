//! A host name → addresses → a connected stream.

use std::fmt;
use std::io;
use std::net::{SocketAddr, ToSocketAddrs as _};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use socket2::{Domain, Protocol, SockAddr, Socket, Type};

use super::pace::Pace;
use super::tls::{Client, Refusal, TlsError};
use super::{IpVersion, Stream};
use crate::limits::{ADDRESSES_MAX, BACKOFF_MAX, BACKOFF_MIN, DIAL_TIMEOUT, TLS_HELLO_TIMEOUT};
use crate::stop::Stop;

/// Opens streams to one receiver.
#[derive(Debug)]
pub struct Dialer {
    target: Target,
    stall: Duration,
    retry_for: Duration,
    pace: Option<Arc<Pace>>,
    congestion: Option<String>,
    /// The address that answered last is asked first.
    preferred: AtomicUsize,
    /// Whom to trust, where streams are encrypted.
    tls: Option<Client>,
}

#[derive(Debug)]
enum Target {
    Addresses(Vec<SocketAddr>),
    Local(PathBuf),
}

/// Why there is no stream.
#[derive(Debug, thiserror::Error)]
pub enum DialError {
    /// The name means nothing.
    #[error("can't resolve '{host}'")]
    Resolve {
        /// The name.
        host: String,
        /// What the resolver said.
        source: io::Error,
    },
    /// The name has no address of the version asked for.
    #[error("'{host}' has no IPv{version} address; leave --ip_version out to use any")]
    NoAddress {
        /// The name.
        host: String,
        /// The version.
        version: IpVersion,
    },
    /// No address took the connection; the last one's reason.
    #[error("can't connect to {address}")]
    Connect {
        /// The address, or what stands for it.
        address: String,
        /// What the system said.
        source: io::Error,
    },
    /// The receiver's host key is not trusted, or nobody can say whether it is. Trying again, or at
    /// another address, would be to ask until someone says yes.
    #[error(transparent)]
    Refused(Box<Refusal>),
    /// Whoever answers there knows nothing of TLS.
    #[error(
        "{address} does not answer like a receiver of version 2 ({why}); \
         for a receiver of Parallel-transfer-file use --protocol v1"
    )]
    Foreign {
        /// The address, or what stands for it.
        address: String,
        /// What it did instead.
        why: &'static str,
    },
    /// The connection could not be encrypted.
    #[error("can't talk to {address} in TLS")]
    Tls {
        /// The address, or what stands for it.
        address: String,
        /// Why.
        source: TlsError,
    },
    /// Asked to stop while trying.
    #[error("stopped while connecting")]
    Stopped,
}

impl DialError {
    /// Was the receiver not trusted?
    #[must_use]
    pub fn is_refusal(&self) -> bool {
        matches!(self, Self::Refused(_))
    }

    /// Does whoever answers there know nothing of TLS?
    #[must_use]
    pub fn is_foreign(&self) -> bool {
        matches!(self, Self::Foreign { .. })
    }

    fn in_tls(address: String, error: TlsError) -> Self {
        match error {
            TlsError::Refused(refusal) => Self::Refused(refusal),
            TlsError::Foreign(why) => Self::Foreign { address, why },
            source => Self::Tls { address, source },
        }
    }
}

impl Dialer {
    /// A dialer to these addresses, the first one first.
    #[must_use]
    pub fn to_addresses(addresses: Vec<SocketAddr>, stall: Duration, retry_for: Duration) -> Self {
        Self {
            target: Target::Addresses(addresses),
            stall,
            retry_for,
            pace: None,
            congestion: None,
            preferred: AtomicUsize::new(0),
            tls: None,
        }
    }

    /// A dialer to a host: to all its addresses, or to those of one version.
    ///
    /// # Errors
    /// [`DialError::Resolve`] and [`DialError::NoAddress`].
    pub fn to_host(
        host: &str, port: u16, version: Option<IpVersion>, stall: Duration, retry_for: Duration,
    ) -> Result<Self, DialError> {
        let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
        let resolved = (bare, port).to_socket_addrs().map_err(|source| DialError::Resolve { host: host.to_owned(), source })?;
        let mut addresses: Vec<SocketAddr> = Vec::new();
        for address in resolved.filter(|address| version.is_none_or(|version| version.holds(address.ip()))) {
            if !addresses.contains(&address) && addresses.len() < ADDRESSES_MAX {
                addresses.push(address);
            }
        }
        match (addresses.is_empty(), version) {
            (true, Some(version)) => Err(DialError::NoAddress { host: host.to_owned(), version }),
            (true, None) => {
                Err(DialError::Resolve { host: host.to_owned(), source: io::Error::other("the name has no address") })
            }
            _ => Ok(Self::to_addresses(addresses, stall, retry_for)),
        }
    }

    /// A dialer to a listener of this machine.
    #[must_use]
    pub fn to_local(path: PathBuf, stall: Duration) -> Self {
        Self {
            target: Target::Local(path),
            stall,
            retry_for: Duration::ZERO,
            pace: None,
            congestion: None,
            preferred: AtomicUsize::new(0),
            tls: None,
        }
    }

    /// Does it dial a listener of this machine?
    #[must_use]
    pub fn is_local(&self) -> bool {
        matches!(self.target, Target::Local(_))
    }

    /// The same, with streams that are encrypted if there is a client for that.
    #[must_use]
    pub fn with_tls(self, tls: Option<Client>) -> Self {
        Self { tls, ..self }
    }

    /// Whom it trusts; `None` where streams are in clear.
    #[must_use]
    pub fn tls(&self) -> Option<&Client> {
        self.tls.as_ref()
    }

    /// The same dialer, whose streams share a pace.
    #[must_use]
    pub fn with_pace(self, pace: Option<Arc<Pace>>) -> Self {
        Self { pace, ..self }
    }

    /// The same dialer, for whose streams the kernel is asked for this congestion control.
    #[must_use]
    pub fn with_congestion(self, congestion: Option<String>) -> Self {
        Self { congestion, ..self }
    }

    /// The congestion control that the kernel is asked for.
    #[must_use]
    pub fn congestion(&self) -> Option<&str> {
        self.congestion.as_deref()
    }

    /// The addresses, the one that answered last first; none for a local one.
    #[must_use]
    pub fn addresses(&self) -> Vec<SocketAddr> {
        match &self.target {
            Target::Addresses(addresses) => {
                let mut addresses = addresses.clone();
                let len = addresses.len();
                addresses.rotate_left(self.preferred.load(Ordering::Relaxed) % len.max(1));
                addresses
            }
            Target::Local(_) => Vec::new(),
        }
    }

    /// How long a lost connection is dialled again.
    #[must_use]
    pub fn retry_for(&self) -> Duration {
        self.retry_for
    }

    /// How long a peer may make no progress.
    #[must_use]
    pub fn stall(&self) -> Duration {
        self.stall
    }

    /// Tries each address once, and encrypts the stream if there is a client for that.
    ///
    /// # Errors
    /// The last address's reason, a refusal, or [`DialError::Stopped`].
    pub fn dial(&self, stop: &Stop) -> Result<Stream, DialError> {
        let addresses = match &self.target {
            Target::Local(path) => {
                let error = |source| DialError::Connect { address: self.to_string(), source };
                let socket = Socket::new(Domain::UNIX, Type::STREAM, None).map_err(error)?;
                socket.connect(&SockAddr::unix(path).map_err(error)?).map_err(error)?;
                let mut stream = Stream::new(socket, self.stall, false).map_err(error)?;
                if let Some(pace) = &self.pace {
                    stream.set_pace(pace);
                }
                return self.encrypt(stream, || self.to_string());
            }
            Target::Addresses(addresses) => addresses,
        };
        let first = self.preferred.load(Ordering::Relaxed);
        let mut failed = DialError::Connect { address: self.to_string(), source: io::ErrorKind::AddrNotAvailable.into() };
        for index in (0..addresses.len()).map(|step| (first + step) % addresses.len()) {
            if stop.is_asked() {
                return Err(DialError::Stopped);
            }
            let address = || addresses[index].to_string();
            let connected = self.connect(addresses[index]).map_err(|source| DialError::Connect { address: address(), source });
            match connected.and_then(|stream| self.encrypt(stream, address)) {
                Ok(stream) => {
                    self.preferred.store(index, Ordering::Relaxed);
                    return Ok(stream);
                }
                Err(error) if error.is_refusal() => return Err(error),
                Err(error) => {
                    tracing::debug!("no connection to {}: {error}", addresses[index]);
                    failed = error;
                }
            }
        }
        Err(failed)
    }

    fn connect(&self, address: SocketAddr) -> io::Result<Stream> {
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
        if let Some(name) = &self.congestion {
            socket.set_tcp_congestion(name.as_bytes()).map_err(|error| no_congestion_control(name, &error))?;
        }
        socket.connect_timeout(&address.into(), DIAL_TIMEOUT)?;
        let mut stream = Stream::new(socket, self.stall, true)?;
        if let Some(pace) = &self.pace {
            stream.set_pace(pace);
        }
        Ok(stream)
    }

    fn encrypt(&self, stream: Stream, address: impl FnOnce() -> String) -> Result<Stream, DialError> {
        let Some(client) = &self.tls else { return Ok(stream) };
        stream.start_tls_client(client, TLS_HELLO_TIMEOUT).map_err(|error| DialError::in_tls(address(), error))
    }

    /// Tries all addresses again and again, ever slower, for [`Dialer::retry_for`].
    ///
    /// # Errors
    /// The last attempt's, or [`DialError::Stopped`].
    pub fn dial_patiently(&self, stop: &Stop) -> Result<Stream, DialError> {
        let deadline = Instant::now() + self.retry_for;
        let mut backoff = BACKOFF_MIN;
        loop {
            let error = match self.dial(stop) {
                Ok(stream) => return Ok(stream),
                Err(error) => error,
            };
            if error.is_refusal() || Instant::now() + backoff > deadline {
                return Err(error);
            }
            if stop.wait(backoff) {
                return Err(DialError::Stopped);
            }
            backoff = (backoff * 2).min(BACKOFF_MAX);
        }
    }
}

/// How long to wait after so many failures in a row: ever longer, up to a bound.
#[must_use]
pub fn backoff(failures: u32) -> Duration {
    BACKOFF_MIN.saturating_mul(1 << failures.min(8)).min(BACKOFF_MAX)
}

/// Says what there is instead.
fn no_congestion_control(name: &str, error: &io::Error) -> io::Error {
    let (act, list) = match error.kind() {
        io::ErrorKind::PermissionDenied => ("this user may not use", "tcp_allowed_congestion_control"),
        _ => ("this machine does not have", "tcp_available_congestion_control"),
    };
    let there = std::fs::read_to_string(format!("/proc/sys/net/ipv4/{list}")).unwrap_or_default();
    let there = there.split_whitespace().collect::<Vec<_>>().join(", ");
    io::Error::new(error.kind(), format!("{act} congestion control {name:?} ({error}); there is {there}"))
}

impl fmt::Display for Dialer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.target, self.addresses().first()) {
            (Target::Addresses(_), Some(address)) => address.fmt(f),
            (Target::Addresses(_), None) => f.write_str("no address"),
            (Target::Local(_), _) => f.write_str("the local receiver"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::{RETRY_FOR_DEFAULT, STALL_DEFAULT};
    use crate::net::Listener;
    use crate::net::host_key::HostKey;
    use std::thread;

    fn listener() -> Listener {
        Listener::bind(Some([127, 0, 0, 1].into()), 0, None).unwrap()
    }

    /// Serves one connection with `key`, or closes it without a word.
    fn serve(listener: &Listener, key: Option<&HostKey>) -> bool {
        let (socket, _) = listener.accept(&Stop::new().unwrap()).unwrap().unwrap();
        let mut stream = listener.stream(socket, STALL_DEFAULT).unwrap();
        key.is_some_and(|key| stream.start_tls_server(&key.server(), &[], Instant::now() + TLS_HELLO_TIMEOUT).is_ok())
    }

    fn dialer(listeners: &[&Listener], trusted: &HostKey) -> Dialer {
        let addresses = listeners.iter().map(|listener| listener.address().unwrap()).collect();
        let client = Client::pinned(trusted.fingerprint()).unwrap();
        Dialer::to_addresses(addresses, STALL_DEFAULT, RETRY_FOR_DEFAULT).with_tls(Some(client))
    }

    #[test]
    fn a_refused_receiver_is_not_asked_again_nor_elsewhere() {
        let (key, other) = (HostKey::for_one_job().unwrap(), HostKey::for_one_job().unwrap());
        let (one, two) = (listener(), listener());
        let dialer = dialer(&[&one, &two], &other);
        thread::scope(|scope| {
            scope.spawn(|| assert!(!serve(&one, Some(&key))));
            let start = Instant::now();
            let error = dialer.dial_patiently(&Stop::new().unwrap()).unwrap_err();
            assert!(error.is_refusal() && !error.is_foreign(), "{error}");
            assert!(start.elapsed() < RETRY_FOR_DEFAULT);
        });
        let Listener::Tcp(two) = two else { return };
        assert!(two.accept().is_err(), "the other address was left alone");
    }

    #[test]
    fn an_address_without_tls_is_passed_over_and_named_when_it_is_the_last() {
        let key = HostKey::for_one_job().unwrap();
        let (one, two) = (listener(), listener());
        let stop = Stop::new().unwrap();
        let both = dialer(&[&one, &two], &key);
        thread::scope(|scope| {
            scope.spawn(|| serve(&one, None));
            scope.spawn(|| assert!(serve(&two, Some(&key))));
            assert!(both.dial(&stop).unwrap().is_encrypted());
        });
        assert_eq!(both.addresses()[0], two.address().unwrap(), "it is asked first from now on");
        assert_eq!(both.tls().unwrap().seen().unwrap().fingerprint, key.fingerprint());
        thread::scope(|scope| {
            scope.spawn(|| serve(&one, None));
            let error = dialer(&[&one], &key).dial(&stop).unwrap_err();
            assert!(error.is_foreign() && !error.is_refusal());
            assert!(error.to_string().contains("--protocol v1"), "{error}");
        });
    }
}
