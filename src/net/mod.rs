//! Sockets: streams, listeners and their options. Knows nothing of what travels through them.

mod ahead;
pub mod congestion;
pub mod dial;
pub mod host;
pub mod host_key;
pub mod known_hosts;
pub mod pace;
pub mod relay;
mod sealed;
mod stream;
mod tcp_info;
pub mod tls;
mod wait;

use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::time::Duration;

use congestion::Congestion;
use rustix::event::{PollFd, PollFlags, poll};
use socket2::{Domain, Protocol, SockRef, Socket, Type};

pub use stream::{Handle, Stream};

use crate::limits::BACKLOG;
use crate::stop::Stop;

/// Lets this process have as many descriptors as it may: each connection takes a few, with the file and the
/// folders that it is for, and the usual soft limit of 1024 is for `select(2)`.
pub fn raise_descriptor_limit() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    // Where it is not allowed, a server's connections wait for descriptors.
    let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum });
}

/// Who is at the other end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Peer {
    /// A host.
    Host(SocketAddr),
    /// A process of this user on this machine.
    Local,
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Host(address) => address.fmt(f),
            Self::Local => f.write_str("this machine"),
        }
    }
}

/// Waits until one of two flags is set.
pub fn wait_either(one: &Stop, other: &Stop) {
    while !one.is_asked() && !other.is_asked() {
        // An interrupted wait is a short one.
        let _ = poll(&mut [PollFd::new(one, PollFlags::IN), PollFd::new(other, PollFlags::IN)], None);
    }
}

/// Is this the error of a peer that made no progress for the time allowed?
#[must_use]
pub fn is_stall(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut)
}

/// Where connections arrive.
#[derive(Debug)]
pub enum Listener {
    /// From hosts.
    Tcp(TcpListener),
    /// From this machine alone.
    Unix(UnixListener),
}

impl Listener {
    /// Listens at `address`; without one at `::`, which takes IPv4 as well, or at `0.0.0.0` where
    /// there is no IPv6 or `ip_ver` is 4.
    ///
    /// # Errors
    /// Those of `socket(2)` and `bind(2)`; an address that is not of the version asked for.
    pub fn bind(address: Option<IpAddr>, port: u16, ip_ver: Option<IpVersion>) -> io::Result<Self> {
        if let (Some(address), Some(version)) = (address, ip_ver)
            && !version.holds(address)
        {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, format!("{address} is not an IPv{version} address")));
        }
        match (address, ip_ver) {
            (Some(address), _) => Self::bind_to(address, port),
            (None, Some(IpVersion::V4)) => Self::bind_to(Ipv4Addr::UNSPECIFIED.into(), port),
            (None, Some(IpVersion::V6)) => Self::bind_to(Ipv6Addr::UNSPECIFIED.into(), port),
            (None, None) => match Self::bind_to(Ipv6Addr::UNSPECIFIED.into(), port) {
                Err(error) if is_version_missing(&error) => Self::bind_to(Ipv4Addr::UNSPECIFIED.into(), port),
                bound => bound,
            },
        }
    }

    fn bind_to(address: IpAddr, port: u16) -> io::Result<Self> {
        let address = SocketAddr::new(address, port);
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
        socket.set_reuse_address(true)?;
        if address.ip() == IpAddr::from(Ipv6Addr::UNSPECIFIED) {
            socket.set_only_v6(false)?;
        }
        socket.bind(&address.into())?;
        socket.listen(BACKLOG)?;
        socket.set_nonblocking(true)?;
        Ok(Self::Tcp(socket.into()))
    }

    /// Takes over a socket that somebody else listens with already.
    ///
    /// # Errors
    /// Nobody listens with it; those of `fcntl(2)`.
    pub fn adopt(socket: TcpListener) -> io::Result<Self> {
        if !SockRef::from(&socket).is_listener()? {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "it does not listen"));
        }
        socket.set_nonblocking(true)?;
        Ok(Self::Tcp(socket))
    }

    /// Listens at a path, which should be in a folder that only this user may enter.
    ///
    /// # Errors
    /// Those of `bind(2)`.
    pub fn bind_local(path: &Path) -> io::Result<Self> {
        let listener = UnixListener::bind(path)?;
        listener.set_nonblocking(true)?;
        Ok(Self::Unix(listener))
    }

    /// Has the streams that come use this congestion control.
    ///
    /// # Errors
    /// The system does not have it, or this user may not use it; there is none for a local one.
    pub fn set_congestion(&self, congestion: &Congestion) -> io::Result<()> {
        match self {
            // What is accepted has what listened had.
            Self::Tcp(listener) => congestion.prepare(&SockRef::from(listener)),
            Self::Unix(_) if congestion.is_auto() => Ok(()),
            Self::Unix(_) => Err(io::ErrorKind::Unsupported.into()),
        }
    }

    /// Where it listens; `None` for a local one.
    #[must_use]
    pub fn address(&self) -> Option<SocketAddr> {
        match self {
            Self::Tcp(listener) => listener.local_addr().ok(),
            Self::Unix(_) => None,
        }
    }

    /// Waits for a connection; `None` when asked to stop.
    ///
    /// # Errors
    /// Those of `accept(2)`.
    pub fn accept(&self, stop: &Stop) -> io::Result<Option<(Socket, Peer)>> {
        loop {
            // An interrupted wait is a short one.
            let _ = poll(&mut [PollFd::new(self, PollFlags::IN), PollFd::new(stop, PollFlags::IN)], None);
            if stop.is_asked() {
                return Ok(None);
            }
            if let Some((socket, peer)) = self.try_accept()? {
                socket.set_nonblocking(false)?;
                return Ok(Some((socket, peer)));
            }
        }
    }

    /// Takes a connection that is there already; `None` where there is none.
    ///
    /// # Errors
    /// Those of `accept(2)`.
    pub fn try_accept(&self) -> io::Result<Option<(Socket, Peer)>> {
        let accepted = match self {
            Self::Tcp(listener) => listener.accept().map(|(stream, address)| (Socket::from(stream), Peer::Host(plain(address)))),
            Self::Unix(listener) => listener.accept().map(|(stream, _)| (Socket::from(stream), Peer::Local)),
        };
        match accepted {
            Ok(accepted) => Ok(Some(accepted)),
            // The peer left before it was taken in.
            Err(error) if is_passing(&error) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Makes an accepted socket a stream.
    ///
    /// # Errors
    /// Those of `setsockopt(2)`: the peer may be gone.
    pub fn stream(&self, socket: Socket, stall: Duration) -> io::Result<Stream> {
        Stream::new(socket, stall, matches!(self, Self::Tcp(_)))
    }
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Tcp(listener) => listener.as_fd(),
            Self::Unix(listener) => listener.as_fd(),
        }
    }
}

/// An IPv4 address that came in through an IPv6 socket is an IPv4 address.
fn plain(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

/// Does `accept(2)` say that the next connection may do better?
fn is_passing(error: &io::Error) -> bool {
    use rustix::io::Errno as E;
    let left = [E::AGAIN, E::INTR, E::CONNABORTED, E::CONNRESET, E::PROTO, E::PERM];
    let unreachable = [E::NETDOWN, E::NETUNREACH, E::HOSTUNREACH, E::HOSTDOWN, E::NONET, E::NOPROTOOPT, E::OPNOTSUPP];
    E::from_io_error(error).is_some_and(|errno| left.contains(&errno) || unreachable.contains(&errno))
}

/// Is this the error of a machine without IPv6?
fn is_version_missing(error: &io::Error) -> bool {
    let missing = [rustix::io::Errno::AFNOSUPPORT, rustix::io::Errno::ADDRNOTAVAIL];
    rustix::io::Errno::from_io_error(error).is_some_and(|errno| missing.contains(&errno))
}

/// A version of the Internet Protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IpVersion {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl IpVersion {
    /// Is `address` of this version?
    #[must_use]
    pub fn holds(self, address: IpAddr) -> bool {
        address.is_ipv4() == (self == Self::V4)
    }
}

impl fmt::Display for IpVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if *self == Self::V4 { "4" } else { "6" })
    }
}
