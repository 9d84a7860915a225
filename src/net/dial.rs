//! A host name → addresses → a connected stream.

mod beyond;

use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rustix::event::PollFlags;
use socket2::{Domain, Protocol, SockAddr, Socket, Type};

use super::congestion::Congestion;
use super::host::HostPort;
use super::pace::Pace;
use super::tls::{Client, Refusal, TlsError};
use super::wait::ready;
use super::{IpVersion, Stream};
use crate::limits::{BACKOFF_MAX, BACKOFF_MIN, DIAL_TIMEOUT, READY_AFTER, TLS_HELLO_TIMEOUT, UNSENT_LEN_MAX};
use crate::stop::Stop;

/// Opens streams to one receiver: straight, through a relay, or by whichever of several routes goes through.
#[derive(Debug)]
pub struct Dialer {
    target: Target,
    /// Where its streams start from, where that is not the system's choice.
    bind: Option<Bind>,
    stall: Duration,
    retry_for: Duration,
    pace: Option<Arc<Pace>>,
    congestion: Option<Arc<Congestion>>,
    /// The address that answered last is asked first.
    preferred: AtomicUsize,
    /// Since when the first connection is being made, or how long that took.
    first: Mutex<Option<First>>,
    /// Whom to trust, where streams are encrypted.
    tls: Option<Client>,
}

#[derive(Debug)]
enum Target {
    Addresses(Vec<SocketAddr>),
    Local(PathBuf),
    /// What a relay may know it by.
    Beyond(Vec<HostPort>, Via),
    /// One receiver by several routes.
    Any(Vec<Dialer>),
}

/// Who passes streams on, and how that is asked for.
struct Via {
    /// As the user named it, with those before it.
    name: String,
    relay: Box<Dialer>,
    ask: Box<Ask>,
}

/// Asks a relay, over a stream to it that the dialer opened, to pass that on to a receiver; gives the stream back once
/// that is granted, with nothing more to be read from it.
pub type Ask = dyn Fn(&Dialer, Stream, &HostPort, &Stop) -> Result<Stream, NotRelayed> + Send + Sync;

/// Why a relay does not pass a stream on.
#[derive(Debug, thiserror::Error)]
#[error("{why}")]
pub struct NotRelayed {
    /// In words.
    pub why: String,
    /// Will it say so again?
    pub is_final: bool,
    /// Is it said of the receiver that was asked for? Then another of its addresses may do.
    pub is_of_host: bool,
}

/// The first connection of a dialer, as far as TCP.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum First {
    /// It is being made, since then.
    Since(Instant),
    /// It took so long, which is a round trip.
    Took(Duration),
}

/// Where streams start from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Bind {
    /// From this address of this machine.
    Address(IpAddr),
    /// Out of this interface.
    Interface(String),
}

impl fmt::Display for Bind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(address) => address.fmt(f),
            Self::Interface(name) => f.write_str(name),
        }
    }
}

impl fmt::Debug for Via {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.relay.fmt(f)
    }
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
    /// A relay can't be had, or does not pass streams on as it should.
    #[error("no way through relay {relay}")]
    Relay {
        /// The relay, as the user named it.
        relay: String,
        /// Will it be so again?
        is_final: bool,
        /// Why.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// Asked to stop while trying.
    #[error("stopped while connecting")]
    Stopped,
}

impl DialError {
    /// Was the receiver not trusted, or did a relay say no?
    #[must_use]
    pub fn is_refusal(&self) -> bool {
        matches!(self, Self::Refused(_) | Self::Relay { is_final: true, .. })
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
        Self::to(Target::Addresses(addresses), stall, retry_for)
    }

    fn to(target: Target, stall: Duration, retry_for: Duration) -> Self {
        Self {
            target,
            bind: None,
            stall,
            retry_for,
            pace: None,
            congestion: None,
            preferred: AtomicUsize::new(0),
            first: Mutex::new(None),
            tls: None,
        }
    }

    /// A dialer to a host that `relay`, which a person calls `name`, reaches by one of `hosts`, the first one first;
    /// `ask` asks for that.
    #[must_use]
    pub fn beyond(hosts: Vec<HostPort>, name: String, relay: Self, ask: Box<Ask>) -> Self {
        let (stall, retry_for) = (relay.stall, relay.retry_for);
        Self::to(Target::Beyond(hosts, Via { name, relay: Box::new(relay), ask }), stall, retry_for)
    }

    /// A dialer to the receiver that all of `routes` lead to, the first one first. None is none.
    #[must_use]
    pub fn any(mut routes: Vec<Self>) -> Option<Self> {
        if routes.len() < 2 {
            return routes.pop();
        }
        let (stall, retry_for) = (routes[0].stall, routes[0].retry_for);
        Some(Self::to(Target::Any(routes), stall, retry_for))
    }

    /// The routes that it has, each as a dialer.
    #[must_use]
    pub fn routes(&self) -> &[Self] {
        match &self.target {
            Target::Any(routes) => routes,
            _ => std::slice::from_ref(self),
        }
    }

    /// Is there anything unusual about how it goes to the receiver?
    #[must_use]
    pub fn has_routes(&self) -> bool {
        matches!(self.target, Target::Any(_) | Target::Beyond(..)) || self.bind.is_some()
    }

    /// Does it go through a relay?
    #[must_use]
    pub fn is_relayed(&self) -> bool {
        matches!(self.target, Target::Beyond(..))
    }

    /// What a person calls this route, among several.
    #[must_use]
    pub fn route_name(&self) -> String {
        match (&self.target, &self.bind) {
            (Target::Beyond(_, via), _) => via.name.clone(),
            (_, Some(bind)) => bind.to_string(),
            _ => "direct".to_owned(),
        }
    }

    /// A dialer to a host: to all its addresses, or to those of one version.
    ///
    /// # Errors
    /// [`DialError::Resolve`] and [`DialError::NoAddress`].
    pub fn to_host(
        host: &str, port: u16, version: Option<IpVersion>, stall: Duration, retry_for: Duration,
    ) -> Result<Self, DialError> {
        let unresolved = |source| DialError::Resolve { host: host.to_owned(), source };
        let named = HostPort::new(host, port).map_err(|error| unresolved(io::Error::other(error)))?;
        let mut addresses = named.resolve().map_err(unresolved)?;
        addresses.retain(|address| version.is_none_or(|version| version.holds(address.ip())));
        match (addresses.is_empty(), version) {
            (true, Some(version)) => Err(DialError::NoAddress { host: host.to_owned(), version }),
            _ => Ok(Self::to_addresses(addresses, stall, retry_for)),
        }
    }

    /// A dialer to a listener of this machine.
    #[must_use]
    pub fn to_local(path: PathBuf, stall: Duration) -> Self {
        Self::to(Target::Local(path), stall, Duration::ZERO)
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
        self.routes()[0].tls.as_ref()
    }

    /// The same, whose streams start there.
    #[must_use]
    pub fn with_bind(self, bind: Option<Bind>) -> Self {
        Self { bind, ..self }
    }

    /// The same dialer, whose streams share a pace.
    #[must_use]
    pub fn with_pace(self, pace: Option<Arc<Pace>>) -> Self {
        Self { pace, ..self }
    }

    /// The same dialer, for whose streams the kernel is asked for this congestion control.
    #[must_use]
    pub fn with_congestion(self, congestion: Option<Arc<Congestion>>) -> Self {
        Self { congestion, ..self }
    }

    /// The congestion control that the kernel is asked for.
    #[must_use]
    pub fn congestion(&self) -> Option<&Congestion> {
        match &self.target {
            // The sockets are of whoever connects.
            Target::Beyond(_, via) => via.relay.congestion(),
            Target::Any(routes) => routes[0].congestion(),
            _ => self.congestion.as_deref(),
        }
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
            Target::Any(routes) => routes[0].addresses(),
            Target::Local(_) | Target::Beyond(..) => Vec::new(),
        }
    }

    /// How far the first connection has come, if it was begun.
    #[must_use]
    pub fn first(&self) -> Option<First> {
        *self.lock_first()
    }

    /// Is the path a long one, as far as that is known? Relays are where it is.
    #[must_use]
    pub fn is_far(&self) -> bool {
        self.has_routes() || matches!(self.first(), Some(First::Took(time)) if time >= READY_AFTER)
    }

    fn lock_first(&self) -> MutexGuard<'_, Option<First>> {
        self.first.lock().unwrap_or_else(PoisonError::into_inner)
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

    /// Tries each route and each address once, and encrypts the stream if there is a client for that.
    ///
    /// # Errors
    /// The last address's reason, and that of the first route; a refusal, or [`DialError::Stopped`].
    pub fn dial(&self, stop: &Stop) -> Result<Stream, DialError> {
        match &self.target {
            Target::Addresses(addresses) => self.dial_addresses(addresses, stop),
            Target::Local(path) => {
                let error = |source| DialError::Connect { address: self.to_string(), source };
                let socket = Socket::new(Domain::UNIX, Type::STREAM, None).map_err(error)?;
                socket.connect(&SockAddr::unix(path).map_err(error)?).map_err(error)?;
                self.encrypt(Stream::new(socket, self.stall, false).map_err(error)?, stop, || self.to_string())
            }
            Target::Beyond(hosts, via) => self.dial_beyond(hosts, via, stop),
            Target::Any(routes) => {
                let mut first: Option<DialError> = None;
                for route in routes {
                    match route.dial(stop) {
                        // A receiver's own key is the same on all routes.
                        Err(error @ (DialError::Refused(_) | DialError::Stopped)) => return Err(error),
                        Err(error) => {
                            tracing::debug!("no connection by route {}: {error}", route.route_name());
                            note_failure(&mut first, error);
                        }
                        dialled => return dialled,
                    }
                }
                Err(first.unwrap_or(DialError::Stopped))
            }
        }
    }

    fn dial_addresses(&self, addresses: &[SocketAddr], stop: &Stop) -> Result<Stream, DialError> {
        let first = self.preferred.load(Ordering::Relaxed);
        let mut failed = DialError::Connect { address: self.to_string(), source: io::ErrorKind::AddrNotAvailable.into() };
        for index in (0..addresses.len()).map(|step| (first + step) % addresses.len()) {
            if stop.is_asked() {
                return Err(DialError::Stopped);
            }
            let address = || addresses[index].to_string();
            let connected =
                self.connect(addresses[index], stop).map_err(|source| DialError::Connect { address: address(), source });
            match connected.and_then(|stream| self.encrypt(stream, stop, address)) {
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

    fn connect(&self, address: SocketAddr, stop: &Stop) -> io::Result<Stream> {
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
        if let Some(congestion) = &self.congestion {
            congestion.prepare(&socket)?;
        }
        let not_there =
            |bind: &Bind, error: &io::Error| io::Error::new(error.kind(), format!("can't start from {bind}: {error}"));
        match &self.bind {
            None => {}
            Some(bind @ Bind::Address(from)) if from.is_ipv4() != address.is_ipv4() => {
                return Err(not_there(bind, &io::Error::other("it is of another IP version")));
            }
            Some(bind @ Bind::Address(from)) => {
                socket.bind(&SocketAddr::new(*from, 0).into()).map_err(|error| not_there(bind, &error))?;
            }
            Some(bind @ Bind::Interface(name)) => {
                socket.bind_device(Some(name.as_bytes())).map_err(|error| not_there(bind, &error))?;
            }
        }
        let before = Instant::now();
        self.lock_first().get_or_insert(First::Since(before));
        connect_until(&socket, address, before + DIAL_TIMEOUT, stop)?;
        let took = before.elapsed();
        let mut first = self.lock_first();
        if !matches!(*first, Some(First::Took(_))) {
            *first = Some(First::Took(took));
        }
        drop(first);
        if took >= READY_AFTER {
            // A system that can't do without it sends all the same.
            let _ = socket.set_tcp_notsent_lowat(UNSENT_LEN_MAX);
        }
        let stream = Stream::new(socket, self.stall, true)?;
        if let Some(congestion) = &self.congestion {
            congestion.note(stream.handle());
        }
        Ok(stream)
    }

    fn encrypt(&self, mut stream: Stream, stop: &Stop, address: impl FnOnce() -> String) -> Result<Stream, DialError> {
        if let Some(pace) = &self.pace {
            stream.set_pace(pace);
        }
        let Some(client) = &self.tls else { return Ok(stream) };
        stream.start_tls_client(client, TLS_HELLO_TIMEOUT, stop).map_err(|error| match stop.is_asked() {
            true => DialError::Stopped,
            false => DialError::in_tls(address(), error),
        })
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

/// Keeps the first of several failures, but one that may do another time counts for more than one that never will.
fn note_failure(first: &mut Option<DialError>, error: DialError) {
    if first.as_ref().is_none_or(|first| first.is_refusal() && !error.is_refusal()) {
        *first = Some(error);
    }
}

/// Connects, and gives up at the deadline or when asked to stop.
fn connect_until(socket: &Socket, address: SocketAddr, deadline: Instant, stop: &Stop) -> io::Result<()> {
    socket.set_nonblocking(true)?;
    match socket.connect(&address.into()) {
        Err(error) if rustix::io::Errno::from_io_error(&error) == Some(rustix::io::Errno::INPROGRESS) => {}
        connected => connected?,
    }
    if !ready(socket, PollFlags::OUT, Some(deadline), Some(stop)) {
        return Err(io::ErrorKind::TimedOut.into());
    }
    socket.take_error()?.map_or(Ok(()), Err)?;
    socket.set_nonblocking(false)
}

/// How long to wait after so many failures in a row: ever longer, up to a bound.
#[must_use]
pub fn backoff(failures: u32) -> Duration {
    BACKOFF_MIN.saturating_mul(1 << failures.min(8)).min(BACKOFF_MAX)
}

impl fmt::Display for Dialer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.target, self.addresses().first()) {
            (Target::Beyond(hosts, via), _) => {
                let reached = hosts.get(self.preferred.load(Ordering::Relaxed));
                reached.map_or(Ok(()), |host| write!(f, "{host} "))?;
                write!(f, "via {}", via.name)
            }
            (Target::Local(_), _) => f.write_str("the local receiver"),
            (Target::Any(routes), None) => routes[0].fmt(f),
            (_, Some(address)) => address.fmt(f),
            (_, None) => f.write_str("no address"),
        }
    }
}

#[cfg(test)]
mod tests;
