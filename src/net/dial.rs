//! A host name → addresses → a connected stream.

use std::fmt;
use std::io;
use std::net::{SocketAddr, ToSocketAddrs as _};
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use socket2::{Domain, Protocol, SockAddr, Socket, Type};

use super::{IpVersion, Stream};
use crate::limits::{ADDRESSES_MAX, BACKOFF_MAX, BACKOFF_MIN, DIAL_TIMEOUT};
use crate::stop::Stop;

/// Opens streams to one receiver.
#[derive(Debug)]
pub struct Dialer {
    target: Target,
    stall: Duration,
    retry_for: Duration,
    /// The address that answered last is asked first.
    preferred: AtomicUsize,
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
    /// Asked to stop while trying.
    #[error("stopped while connecting")]
    Stopped,
}

impl Dialer {
    /// A dialer to these addresses, the first one first.
    #[must_use]
    pub fn to_addresses(addresses: Vec<SocketAddr>, stall: Duration, retry_for: Duration) -> Self {
        Self { target: Target::Addresses(addresses), stall, retry_for, preferred: AtomicUsize::new(0) }
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
        Self { target: Target::Local(path), stall, retry_for: Duration::ZERO, preferred: AtomicUsize::new(0) }
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

    /// Tries each address once.
    ///
    /// # Errors
    /// [`DialError::Connect`] with the last address's reason, or [`DialError::Stopped`].
    pub fn dial(&self, stop: &Stop) -> Result<Stream, DialError> {
        let addresses = match &self.target {
            Target::Local(path) => {
                let error = |source| DialError::Connect { address: self.to_string(), source };
                let socket = Socket::new(Domain::UNIX, Type::STREAM, None).map_err(error)?;
                socket.connect(&SockAddr::unix(path).map_err(error)?).map_err(error)?;
                return Stream::new(socket, self.stall, false).map_err(error);
            }
            Target::Addresses(addresses) => addresses,
        };
        let first = self.preferred.load(Ordering::Relaxed);
        let mut failed = DialError::Connect { address: self.to_string(), source: io::ErrorKind::AddrNotAvailable.into() };
        for index in (0..addresses.len()).map(|step| (first + step) % addresses.len()) {
            if stop.is_asked() {
                return Err(DialError::Stopped);
            }
            match self.connect(addresses[index]) {
                Ok(stream) => {
                    self.preferred.store(index, Ordering::Relaxed);
                    return Ok(stream);
                }
                Err(source) => {
                    tracing::debug!("{} does not answer: {source}", addresses[index]);
                    failed = DialError::Connect { address: addresses[index].to_string(), source };
                }
            }
        }
        Err(failed)
    }

    fn connect(&self, address: SocketAddr) -> io::Result<Stream> {
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
        socket.connect_timeout(&address.into(), DIAL_TIMEOUT)?;
        Stream::new(socket, self.stall, true)
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
            if Instant::now() + backoff > deadline {
                return Err(error);
            }
            if stop.wait(backoff) {
                return Err(DialError::Stopped);
            }
            backoff = (backoff * 2).min(BACKOFF_MAX);
        }
    }
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
