//! What the kernel knows of a TCP connection: how long a round trip takes, and how much was sent again. `TCP_INFO` says
//! so, too, but no crate in use reads that without unsafe code; `sock_diag(7)` gives the same structure as bytes.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;
use std::time::Duration;

use rustix::net::netdevice::name_to_index;
use rustix::net::netlink::{SOCK_DIAG, SocketAddrNetlink};
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, recv, sendto, socket_with};
use socket2::Socket;

/// Where connections of this network namespace are asked for.
#[derive(Debug)]
pub(super) struct Diag(OwnedFd);

/// A connection as it is at a moment.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct TcpInfo {
    /// Segments with content that went out, those sent again included; begins anew at 2^32.
    pub(super) sent: u32,
    /// Those sent again.
    pub(super) sent_again: u32,
    /// A round trip, smoothed (RFC 6298, 2).
    pub(super) trip: Duration,
    /// The shortest of the last minutes.
    pub(super) trip_min: Duration,
}

impl Diag {
    /// # Errors
    /// Those of `socket(2)`: not every container has netlink.
    pub(super) fn open() -> io::Result<Self> {
        Ok(Self(socket_with(AddressFamily::NETLINK, SocketType::DGRAM, SocketFlags::CLOEXEC, Some(SOCK_DIAG))?))
    }

    /// What is known of a connected socket of TCP.
    ///
    /// # Errors
    /// The kernel knows no such connection, or no round trip of it, or says less: `InvalidData`.
    pub(super) fn of(&self, socket: &Socket) -> io::Result<TcpInfo> {
        let ends = socket.local_addr()?.as_socket().zip(socket.peer_addr()?.as_socket());
        let (local, peer) = ends.ok_or(io::ErrorKind::InvalidInput)?;
        let interface = match (socket.device()?, local) {
            // It is found by that alone.
            (Some(name), _) => name_to_index(&self.0, std::str::from_utf8(&name).unwrap_or_default())?,
            (None, SocketAddr::V6(local)) => local.scope_id(),
            (None, SocketAddr::V4(_)) => 0,
        };
        self.ask(&request(local, peer, interface, socket.cookie()?))
    }

    fn ask(&self, request: &[u8]) -> io::Result<TcpInfo> {
        sendto(&self.0, request, SendFlags::empty(), &SocketAddrNetlink::new(0, 0))?;
        let mut bytes = [0; REPLY_LEN_MAX];
        // The reply is there when the request was taken.
        let (len, _) = recv(&self.0, &mut bytes[..], RecvFlags::DONTWAIT)?;
        parse(bytes.get(..len).unwrap_or_default())
    }
}

const REPLY_LEN_MAX: usize = 4096;

/// `struct nlmsghdr`: length, type, flags, number, sender.
const HEADER_LEN: usize = 16;

/// `struct inet_diag_req_v2`.
const REQUEST_LEN: usize = 56;

/// `struct inet_diag_msg`.
const MESSAGE_LEN: usize = 72;

const NLMSG_ERROR: u16 = 2;
const SOCK_DIAG_BY_FAMILY: u16 = 20;
const NLM_F_REQUEST: u16 = 1;
const INET_DIAG_INFO: u16 = 2;
const IPPROTO_TCP: u8 = 6;

/// Asks for one connection by its two ends; by its cookie, too, for once it is gone who listens there would answer.
fn request(local: SocketAddr, peer: SocketAddr, interface: u32, cookie: u64) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(HEADER_LEN + REQUEST_LEN);
    bytes.extend(((HEADER_LEN + REQUEST_LEN) as u32).to_ne_bytes());
    bytes.extend(SOCK_DIAG_BY_FAMILY.to_ne_bytes());
    bytes.extend(NLM_F_REQUEST.to_ne_bytes());
    bytes.extend([0; 8]);
    let family = if local.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    bytes.extend([family.as_raw() as u8, IPPROTO_TCP, 1 << (INET_DIAG_INFO - 1), 0]);
    // In whatever state it is.
    bytes.extend(u32::MAX.to_ne_bytes());
    for port in [local.port(), peer.port()] {
        bytes.extend(port.to_be_bytes());
    }
    for address in [local.ip(), peer.ip()] {
        match address {
            IpAddr::V4(address) => bytes.extend(address.octets().into_iter().chain([0; 12])),
            IpAddr::V6(address) => bytes.extend(address.octets()),
        }
    }
    bytes.extend(interface.to_ne_bytes());
    // The lower half first, on any machine.
    bytes.extend([cookie as u32, (cookie >> 32) as u32].into_iter().flat_map(u32::to_ne_bytes));
    bytes
}

fn parse(bytes: &[u8]) -> io::Result<TcpInfo> {
    let invalid = || io::Error::from(io::ErrorKind::InvalidData);
    match u16_at(bytes, 4).ok_or_else(invalid)? {
        SOCK_DIAG_BY_FAMILY => info_of(bytes).ok_or_else(invalid),
        NLMSG_ERROR => Err(io::Error::from_raw_os_error(u32_at(bytes, HEADER_LEN).map_or(0, u32::wrapping_neg) as i32)),
        _ => Err(invalid()),
    }
}

/// Out of the attributes behind the message.
fn info_of(bytes: &[u8]) -> Option<TcpInfo> {
    let mut rest = bytes.get(HEADER_LEN + MESSAGE_LEN..)?;
    loop {
        let len = usize::from(u16_at(rest, 0)?);
        let attribute = rest.get(4..len)?;
        if u16_at(rest, 2)? == INET_DIAG_INFO {
            // As in `struct tcp_info` of linux/tcp.h, which only grows at its end.
            let microseconds = |at| Some(Duration::from_micros(u32_at(attribute, at)?.into()));
            let info = TcpInfo {
                sent: u32_at(attribute, 156)?,
                sent_again: u32_at(attribute, 100)?,
                trip: microseconds(68)?,
                trip_min: microseconds(148)?,
            };
            // What no round trip was measured of yet.
            let is_known = !info.trip_min.is_zero() && info.trip_min < Duration::from_micros(u32::MAX.into());
            return is_known.then_some(info);
        }
        rest = rest.get(len.next_multiple_of(4)..)?;
    }
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(*bytes.get(at..)?.first_chunk()?))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(*bytes.get(at..)?.first_chunk()?))
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};
    use std::net::{TcpListener, TcpStream};

    use socket2::{Domain, Type};

    use super::*;

    /// Both ends of a connection, over which so many bytes went.
    #[allow(clippy::disallowed_methods, reason = "the peer is this test")]
    fn pair(address: &str, len: usize) -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind(address).unwrap();
        let mut from = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let mut to = listener.accept().unwrap().0;
        from.set_nodelay(true).unwrap();
        from.write_all(&vec![7; len]).unwrap();
        to.read_exact(&mut vec![0; len]).unwrap();
        (from, to)
    }

    #[test]
    fn the_kernel_tells_of_either_end_of_a_connection() {
        let diag = Diag::open().unwrap();
        for address in ["127.0.0.1:0", "[::1]:0", "[::ffff:127.0.0.1]:0"] {
            let (from, to) = pair(address, 3);
            let (from, to) = (Socket::from(from), Socket::from(to));
            let info = diag.of(&from).unwrap();
            assert_eq!((info.sent, info.sent_again), (1, 0), "{address}");
            assert!(!info.trip_min.is_zero() && info.trip_min <= info.trip && info.trip < Duration::from_secs(1), "{info:?}");
            assert_eq!(diag.of(&to).unwrap().sent, 0, "{address}");
        }
    }

    #[test]
    fn a_stream_of_one_interface_is_found_and_another_in_its_place_is_not() {
        let (from, _to) = pair("127.0.0.1:0", 3);
        let from = Socket::from(from);
        let diag = Diag::open().unwrap();
        if let Err(error) = from.bind_device(Some(b"lo")) {
            println!("SKIPPED: this user may not bind to an interface: {error}");
        }
        assert_eq!(diag.of(&from).unwrap().sent, 1);
        let ends = [from.local_addr(), from.peer_addr()].map(|end| end.unwrap().as_socket().unwrap());
        assert!(diag.ask(&request(ends[0], ends[1], 1, from.cookie().unwrap() + 1)).is_err());
    }

    #[test]
    fn what_is_no_connection_is_an_error() {
        let diag = Diag::open().unwrap();
        let (here, there) = ("127.0.0.1:1".parse().unwrap(), "127.0.0.1:2".parse().unwrap());
        assert_eq!(diag.ask(&request(here, there, 0, 1)).unwrap_err().kind(), io::ErrorKind::NotFound);
        let unconnected = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        assert_eq!(diag.of(&unconnected).unwrap_err().kind(), io::ErrorKind::NotConnected);
    }

    #[test]
    fn replies_that_are_cut_off_are_errors() {
        let mut reply = vec![0; HEADER_LEN + MESSAGE_LEN];
        reply[4..6].copy_from_slice(&SOCK_DIAG_BY_FAMILY.to_ne_bytes());
        // Another attribute of one byte first.
        reply.extend([5_u16, 8].into_iter().flat_map(u16::to_ne_bytes).chain([1, 0, 0, 0]));
        reply.extend([4 + 160_u16, INET_DIAG_INFO].into_iter().flat_map(u16::to_ne_bytes));
        reply.extend((0..40_u32).flat_map(u32::to_ne_bytes));
        let (trip, trip_min) = (Duration::from_micros(17), Duration::from_micros(37));
        assert_eq!(parse(&reply).unwrap(), TcpInfo { sent: 39, sent_again: 25, trip, trip_min });
        for len in 0..reply.len() {
            assert_eq!(parse(&reply[..len]).unwrap_err().kind(), io::ErrorKind::InvalidData, "{len}");
        }
        let at = HEADER_LEN + MESSAGE_LEN + 8 + 4 + 148;
        for unknown in [0, u32::MAX] {
            reply[at..at + 4].copy_from_slice(&unknown.to_ne_bytes());
            assert_eq!(parse(&reply).unwrap_err().kind(), io::ErrorKind::InvalidData, "{unknown}");
        }
        let nonsense = [0; 4];
        reply.truncate(HEADER_LEN + MESSAGE_LEN);
        reply.extend(nonsense);
        assert_eq!(parse(&reply).unwrap_err().kind(), io::ErrorKind::InvalidData);
    }
}
