//! A connected socket: what is read and written, and what others may do to it meanwhile.

use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::net::{RecvFlags, recv};
use socket2::{Socket, TcpKeepalive};

use super::sealed::Sealed;
use super::tls::{Client, Server, TlsError};
use crate::limits::{BUFFER_LEN, KEEPALIVE_IDLE, LINGER, STALL_MAX};

/// A hold on a stream's socket, for those who watch over it. Clones are one socket: what one shuts
/// down is shut for all.
#[derive(Debug, Clone)]
pub struct Handle(Arc<Socket>);

impl Handle {
    /// From now on a read or a write fails that makes no progress for `stall`.
    ///
    /// # Errors
    /// Those of `setsockopt(2)`.
    pub fn limit_waits(&self, stall: Duration) -> io::Result<()> {
        self.0.set_read_timeout(Some(stall))?;
        self.0.set_write_timeout(Some(stall))
    }

    /// Would a read return at once?
    #[must_use]
    pub fn is_readable(&self) -> bool {
        let mut polled = [PollFd::new(&*self.0, PollFlags::IN)];
        matches!(poll(&mut polled, Some(&rustix::event::Timespec::default())), Ok(1..))
    }

    /// Was the stream reset by the peer? (One that only ended its writing is still there.)
    #[must_use]
    pub fn is_reset(&self) -> bool {
        let mut polled = [PollFd::new(&*self.0, PollFlags::empty())];
        let _ = poll(&mut polled, Some(&rustix::event::Timespec::default()));
        polled[0].revents().intersects(PollFlags::ERR | PollFlags::HUP)
    }

    /// Ends one or both directions, for all clones, and wakes whoever waits in them.
    pub fn shutdown(&self, how: Shutdown) {
        // A stream that is gone already is as good as shut.
        let _ = self.0.shutdown(how);
    }

    /// Ends the stream at once, and for the peer as well: one that waits for room to write would not
    /// notice an orderly end.
    pub fn reset(&self) {
        // RFC 9293, section 3.6: a close with a linger time of 0 is an abort.
        let _ = self.0.set_linger(Some(Duration::ZERO));
        self.shutdown(Shutdown::Both);
    }

    /// Ends the stream so that what was written arrives: a close with unread bytes would reset the
    /// connection and drop it (RFC 2525, section 2.17). Reads them off for a moment.
    pub fn close_in_order(&self) {
        self.shutdown(Shutdown::Write);
        let deadline = Instant::now() + LINGER;
        let mut unread = vec![0; BUFFER_LEN / 4];
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() || self.0.set_read_timeout(Some(left)).is_err() {
                return;
            }
            if !matches!((&*self.0).read(&mut unread), Ok(1..)) {
                return;
            }
        }
    }
}

/// Two-way bytes over a socket, in clear or in TLS.
#[derive(Debug)]
pub struct Stream {
    handle: Handle,
    sealed: Option<Box<Sealed>>,
}

impl Stream {
    /// Takes over a connected socket and sets its options. A read or a write that makes no progress
    /// for `stall` fails with `WouldBlock`.
    pub(super) fn new(socket: Socket, stall: Duration, tcp: bool) -> io::Result<Self> {
        let stall = stall.min(STALL_MAX);
        if tcp {
            // Header and data are written at once: waiting for more would only cost time.
            socket.set_tcp_nodelay(true)?;
            let keepalive = TcpKeepalive::new().with_time(KEEPALIVE_IDLE).with_interval(KEEPALIVE_IDLE / 4).with_retries(4);
            socket.set_tcp_keepalive(&keepalive)?;
            // A peer that acknowledges nothing for so long is gone, however much is still to be sent.
            socket.set_tcp_user_timeout(Some(stall))?;
        }
        let handle = Handle(Arc::new(socket));
        handle.limit_waits(stall)?;
        Ok(Self { handle, sealed: None })
    }

    /// Encrypts the stream, as the one who dialled: the handshake ends within `timeout`, and with a
    /// peer that `client` trusts. Nothing but its hello was sent to any other.
    ///
    /// # Errors
    /// See [`TlsError`].
    pub fn start_tls_client(self, client: &Client, timeout: Duration) -> Result<Self, TlsError> {
        let deadline = Instant::now() + timeout;
        let mut sealed = Sealed::client(client)?;
        sealed.shake_hands(&self.handle.0, deadline)?;
        let certificate = sealed.certificate().ok_or(TlsError::Failed(rustls::Error::NoCertificatesPresented))?;
        client.confirm(certificate)?;
        Ok(Self { sealed: Some(Box::new(sealed)), ..self })
    }

    /// Encrypts the stream, as the one who was dialled: the handshake ends before `deadline`.
    /// `first_bytes` is what was read of the client's hello already.
    ///
    /// # Errors
    /// See [`TlsError`]; never a refusal.
    pub fn start_tls_server(self, server: &Server, first_bytes: &[u8], deadline: Instant) -> Result<Self, TlsError> {
        let mut sealed = Sealed::server(server, first_bytes)?;
        sealed.shake_hands(&self.handle.0, deadline)?;
        Ok(Self { sealed: Some(Box::new(sealed)), ..self })
    }

    /// Is it in TLS?
    #[must_use]
    pub fn is_encrypted(&self) -> bool {
        self.sealed.is_some()
    }

    /// A hold on the socket.
    #[must_use]
    pub fn handle(&self) -> &Handle {
        &self.handle
    }

    /// Would a read return at once? Where the socket has only a part of a record it would wait for
    /// the rest, which is on its way.
    #[must_use]
    pub fn is_readable(&self) -> bool {
        self.sealed.as_ref().is_some_and(|sealed| sealed.is_readable()) || self.handle.is_readable()
    }

    /// Reads what is here already; `None` where nothing is.
    ///
    /// # Errors
    /// Those of `recv(2)`; `InvalidData` where something was changed on the way.
    pub fn read_available(&mut self, bytes: &mut [u8]) -> io::Result<Option<usize>> {
        if let Some(sealed) = &mut self.sealed {
            return sealed.read(&self.handle.0, bytes, false);
        }
        match recv(&*self.handle.0, bytes, RecvFlags::DONTWAIT) {
            Ok((len, _)) => Ok(Some(len)),
            Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => Ok(None),
            Err(errno) => Err(errno.into()),
        }
    }

    /// Tells the peer that nothing more comes; what it still has to say can be read.
    ///
    /// # Errors
    /// Those of a write, and of `shutdown(2)`.
    pub fn end_writing(&mut self) -> io::Result<()> {
        if let Some(sealed) = &mut self.sealed {
            sealed.close(&self.handle.0)?;
        }
        self.handle.0.shutdown(Shutdown::Write)
    }

    /// Gives back the memory that nothing waits in: for streams that are silent.
    pub fn release(&mut self) {
        if let Some(sealed) = &mut self.sealed {
            sealed.release();
        }
    }
}

impl Read for Stream {
    /// Reads. In TLS, too, the end of the connection is an end like any other, whether or not the peer
    /// announced it: someone in between can bring it about, so that no end may count as success.
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        match &mut self.sealed {
            Some(sealed) => sealed.read(&self.handle.0, bytes, true).map(Option::unwrap_or_default),
            None => (&*self.handle.0).read(bytes),
        }
    }
}

impl Write for Stream {
    /// Writes. In TLS a stream can't be written to after an error: a part of a record may be on its way.
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match &mut self.sealed {
            Some(sealed) => sealed.write(&self.handle.0, bytes),
            None => (&*self.handle.0).write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::{STALL_DEFAULT, TLS_HELLO_TIMEOUT, TLS_RECORD_LEN_MAX};
    use crate::net::host_key::HostKey;
    use crate::net::tls::Refusal;
    use rustix::net::SocketFlags;
    use socket2::{Domain, Type};
    use std::io::ErrorKind;
    use std::sync::mpsc;
    use std::thread;

    fn sockets() -> (Socket, Socket) {
        let _ = SocketFlags::CLOEXEC;
        Socket::pair(Domain::UNIX, Type::STREAM, None).unwrap()
    }

    fn stream(socket: Socket) -> Stream {
        Stream::new(socket, STALL_DEFAULT, false).unwrap()
    }

    fn soon() -> Instant {
        Instant::now() + TLS_HELLO_TIMEOUT
    }

    /// The two ends of an encrypted stream over two sockets.
    fn encrypted(client: Socket, server: Socket) -> (Stream, Stream) {
        let key = HostKey::for_one_job().unwrap();
        let trust = Client::pinned(key.fingerprint()).unwrap();
        let (client, server) = (stream(client), stream(server));
        let server = thread::spawn(move || server.start_tls_server(&key.server(), &[], soon()).unwrap());
        let client = client.start_tls_client(&trust, TLS_HELLO_TIMEOUT).unwrap();
        (client, server.join().unwrap())
    }

    fn pair() -> (Stream, Stream) {
        let (one, other) = sockets();
        encrypted(one, other)
    }

    fn pattern(len: usize) -> Vec<u8> {
        (0..len).map(|index| (index * 31 + index / 251) as u8).collect()
    }

    fn read_exact(stream: &mut Stream, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        stream.read_exact(&mut bytes).unwrap();
        bytes
    }

    #[test]
    fn bytes_arrive_in_both_directions_however_they_are_cut() {
        let (mut client, mut server) = pair();
        assert!(client.is_encrypted() && server.is_encrypted());
        for len in [1, 2, 1000, 16_383, 16_384, 16_385, 100_000] {
            client.write_all(&pattern(len)).unwrap();
            assert_eq!(read_exact(&mut server, len), pattern(len));
            server.write_all(&pattern(len)).unwrap();
            let mut one_by_one = vec![0; len];
            one_by_one.chunks_mut(7).for_each(|bytes| client.read_exact(bytes).unwrap());
            assert!(one_by_one == pattern(len));
        }
        for byte in 0..200_u8 {
            client.write_all(&[byte]).unwrap();
        }
        assert_eq!(read_exact(&mut server, 200), (0..200).collect::<Vec<u8>>());
    }

    #[test]
    fn what_came_before_the_handshake_and_with_its_end_is_not_lost() {
        let key = HostKey::for_one_job().unwrap();
        let trust = Client::pinned(key.fingerprint()).unwrap();
        let (client, server) = sockets();
        let mut client = stream(client);
        thread::scope(|scope| {
            scope.spawn(move || {
                client = client.start_tls_client(&trust, TLS_HELLO_TIMEOUT).unwrap();
                client.write_all(b"at once").unwrap();
                assert_eq!(read_exact(&mut client, 2), b"ok");
            });
            let mut server = stream(server);
            let mut first = [0; 3];
            server.read_exact(&mut first).unwrap();
            assert_eq!(first[0], 0x16);
            let mut server = server.start_tls_server(&key.server(), &first, soon()).unwrap();
            assert_eq!(read_exact(&mut server, 7), b"at once");
            server.write_all(b"ok").unwrap();
        });
    }

    #[test]
    fn much_in_both_directions_at_once_arrives() {
        let (client, server) = pair();
        let bytes = pattern(5_000_000);
        // Each side is a client with a window: it reads what is here between its writes.
        let run = |mut stream: Stream| {
            let (mut came, mut room) = (Vec::new(), vec![0; 70_000]);
            for part in bytes.chunks(60_000) {
                stream.write_all(part).unwrap();
                while came.len() < bytes.len()
                    && let Some(len) = stream.read_available(&mut room).unwrap()
                {
                    came.extend_from_slice(&room[..len]);
                }
            }
            stream.end_writing().unwrap();
            loop {
                match stream.read(&mut room).unwrap() {
                    0 => break,
                    len => came.extend_from_slice(&room[..len]),
                }
            }
            assert!(came == bytes);
        };
        thread::scope(|scope| {
            // A write waits for room, so one of the two always reads.
            let (to_server, from_client) = mpsc::channel();
            scope.spawn(move || to_server.send(()).unwrap());
            from_client.recv().unwrap();
            for socket in [&client, &server] {
                socket.handle().0.set_send_buffer_size(8_000_000).unwrap();
            }
            scope.spawn(|| run(client));
            scope.spawn(|| run(server));
        });
    }
}
