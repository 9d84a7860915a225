//! Bounds of sockets: how long is waited, how much is read, what a peer may send before it is known.

use std::time::Duration;

/// A peer that makes no progress for this long is given up.
pub const STALL_DEFAULT: Duration = Duration::from_secs(120);

/// The longest time that a socket's options can hold: 31 bits of milliseconds.
pub const STALL_MAX: Duration = Duration::from_secs(24 * 24 * 3600);

/// How long a lost connection is dialled again.
pub const RETRY_FOR_DEFAULT: Duration = Duration::from_secs(600);

/// The same for a receiver that, once restarted, has forgotten the job.
pub const RETRY_FOR_FORGETFUL: Duration = Duration::from_secs(30);

/// Wait before a second attempt to connect; doubles with each further one.
pub const BACKOFF_MIN: Duration = Duration::from_millis(50);

/// Longest wait between two attempts to connect.
pub const BACKOFF_MAX: Duration = Duration::from_secs(5);

/// How long one address may take to accept a connection.
pub const DIAL_TIMEOUT: Duration = Duration::from_secs(5);

/// How long a refused peer's bytes are read off, so that answers before the refusal arrive.
pub const LINGER: Duration = Duration::from_secs(2);

/// Idle time after which the kernel asks whether a silent peer is still there.
pub const KEEPALIVE_IDLE: Duration = Duration::from_secs(60);

/// Bytes that wait in a socket's buffer at the most, as Linux is usually set up (`tcp_wmem`).
pub const SOCKET_BUFFER_LEN_MAX: u64 = 4 * 1024 * 1024;

/// A peer that takes at least so many bytes in the time of a stall is slow, not gone.
pub const SLOW_BYTES_MIN: u64 = 1024 * 1024;

/// How long the handshake of TLS may take on the side that dialled, from its first byte on. A peer
/// that knows nothing of TLS stays silent for ever.
pub const TLS_HELLO_TIMEOUT: Duration = Duration::from_secs(5);

/// Bytes of a record of TLS on the wire: 16 KiB, a header and what a cipher may add (RFC 8446, 5.2).
pub const TLS_RECORD_LEN_MAX: usize = 5 + TLS_PLAIN_LEN_MAX + 256;

/// Bytes that one record of TLS carries.
pub const TLS_PLAIN_LEN_MAX: usize = 16 * 1024;

/// Bytes of a handshake that are looked at before it is given up: a hello has some hundred bytes, a
/// certificate a thousand. Two records, so that what follows a handshake at once has room.
pub const TLS_HANDSHAKE_LEN_MAX: usize = 2 * TLS_RECORD_LEN_MAX;

/// Bytes that an encrypted connection takes from its socket at once, and one record that waits for
/// its end. Untouched pages of it cost nothing.
pub const TLS_INCOMING_LEN: usize = 128 * 1024 + TLS_RECORD_LEN_MAX;

/// Bytes that are encrypted for one write to a socket: with their ciphertext they stay in a core's cache.
pub const TLS_WRITE_LEN: usize = 64 * 1024;

/// Bytes of a host key file: a key and a certificate of a thousand bytes in all, of any usual kind.
pub const HOST_KEY_LEN_MAX: usize = 64 * 1024;

/// Bytes of a file of known hosts: ten thousand hosts.
pub const KNOWN_HOSTS_LEN_MAX: usize = 1024 * 1024;

/// How long another run may hold the file of known hosts, for which it needs a moment.
pub const KNOWN_HOSTS_WAIT: Duration = Duration::from_secs(5);

/// How soon it is asked for again.
pub const KNOWN_HOSTS_POLL: Duration = Duration::from_millis(10);

/// Addresses that one host name may resolve to.
pub const ADDRESSES_MAX: usize = 64;

/// Connections that the kernel may hold for a receiver that is busy accepting.
pub const BACKLOG: i32 = 1024;

/// Bytes of what a receiver to be passed on to is called: a name of DNS, brackets, a colon and a port (RFC 1035, 2.3.4).
pub const RELAY_NAME_LEN_MAX: usize = 255 + 2 + 1 + 5;

/// Bytes that a relay has of each direction at the most: two loads of a socket on a usual path, and 128 MiB with a
/// thousand connections.
pub const RELAY_BUFFER_LEN: usize = 64 * 1024;

/// Relays that a connection may pass through.
pub const RELAYS_IN_A_ROW_MAX: usize = 4;

/// How long the first connection may take until the path counts as a long one, on which others are dialled ahead of the
/// work: a handshake on one machine takes a fifth of it.
pub const READY_AFTER: Duration = Duration::from_millis(10);

/// Connections that are dialled so at the most.
pub const READY_NUM_MAX: usize = 12;

/// How old such a connection may be when it is used first: receivers wait for twice as long until one joins a job, see
/// [`LOGIN_TIMEOUT`](super::LOGIN_TIMEOUT).
pub const READY_MAX: Duration = Duration::from_secs(5);

/// Routes to one receiver.
pub const ROUTES_MAX: usize = 64;

/// Connections that may break in a row on a route through relays, without anything confirmed, until the route is given up.
pub const ROUTE_BREAKS_MAX: u32 = 8;
