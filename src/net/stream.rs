//! A connected socket: what is read and written, and what others may do to it meanwhile.

use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::net::{RecvFlags, recv};
use socket2::{Socket, TcpKeepalive};

use super::ahead::Ahead;
use super::pace::Pace;
use super::sealed::Sealed;
use super::tls::{Client, Server, TlsError};
use super::wait::ready;
use crate::limits::{BUFFER_LEN, KEEPALIVE_IDLE, LINGER, STALL_MAX, TLS_WRITE_LEN};
use crate::stop::Stop;

/// A hold on a stream's socket, for those who watch over it. Clones are one socket: what one shuts
/// down is shut for all.
#[derive(Debug, Clone)]
pub struct Handle(pub(super) Arc<Socket>);

impl Handle {
    pub(super) fn socket(&self) -> &Arc<Socket> {
        &self.0
    }

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

    /// Waits until a read would return at once, or `stop` is asked.
    pub fn wait_readable(&self, stop: &Stop) {
        ready(&self.0, PollFlags::IN, None, Some(stop));
    }

    /// The same, for a time.
    pub fn wait_readable_for(&self, time: Duration, stop: &Stop) {
        ready(&self.0, PollFlags::IN, Instant::now().checked_add(time), Some(stop));
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
    ahead: Ahead,
    pace: Option<Arc<Pace>>,
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
        Ok(Self { handle, sealed: None, ahead: Ahead::default(), pace: None })
    }

    /// Lets what is written pass at this pace.
    pub(super) fn set_pace(&mut self, pace: &Arc<Pace>) {
        self.pace = Some(Arc::clone(pace));
    }

    /// Encrypts the stream, as the one who dialled: the handshake ends within `timeout`, and with a
    /// peer that `client` trusts. Nothing but its hello was sent to any other. It is late where `stop` is asked.
    ///
    /// # Errors
    /// See [`TlsError`].
    pub fn start_tls_client(self, client: &Client, timeout: Duration, stop: &Stop) -> Result<Self, TlsError> {
        let deadline = Instant::now() + timeout;
        let mut sealed = Sealed::client(client)?;
        sealed.shake_hands(&self.handle.0, deadline, Some(stop))?;
        let certificate = sealed.certificate().ok_or(TlsError::Failed(rustls::Error::NoCertificatesPresented))?;
        client.confirm(certificate)?;
        Ok(Self { sealed: Some(Box::new(sealed)), ..self })
    }

    /// Encrypts the stream, as the one who was dialled: the handshake ends before `deadline`.
    /// `first_bytes` is what was read of the client's hello already.
    ///
    /// # Errors
    /// See [`TlsError`]; never a refusal.
    pub fn start_tls_server(&mut self, server: &Server, first_bytes: &[u8], deadline: Instant) -> Result<(), TlsError> {
        let mut sealed = Sealed::server(server, first_bytes)?;
        sealed.shake_hands(&self.handle.0, deadline, None)?;
        self.sealed = Some(Box::new(sealed));
        Ok(())
    }

    /// Ends TLS in order, both ways, before `deadline`: what follows is in clear. Gives what of that was read
    /// already.
    ///
    /// # Errors
    /// See [`TlsError`]: the peer did not end it, or said more; it is late where `stop` is asked.
    pub fn end_tls(&mut self, deadline: Instant, stop: &Stop) -> Result<Vec<u8>, TlsError> {
        self.sealed.take().map_or(Ok(Vec::new()), |sealed| sealed.end(&self.handle.0, deadline, stop))
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
        let is_here = self.sealed.as_ref().map_or_else(|| self.ahead.is_readable(), |sealed| sealed.is_readable());
        is_here || self.handle.is_readable()
    }

    /// Reads what is here already; `None` where nothing is.
    ///
    /// # Errors
    /// Those of `recv(2)`; `InvalidData` where something was changed on the way.
    pub fn read_available(&mut self, bytes: &mut [u8]) -> io::Result<Option<usize>> {
        if let Some(sealed) = &mut self.sealed {
            return sealed.read(&self.handle.0, bytes, false);
        }
        if self.ahead.is_readable() {
            return Ok(Some(self.ahead.read(bytes)));
        }
        match recv(&*self.handle.0, bytes, RecvFlags::DONTWAIT) {
            Ok((len, _)) => Ok(Some(len)),
            Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => Ok(None),
            Err(errno) => Err(errno.into()),
        }
    }

    /// From now on a write that waits for room takes in meanwhile what comes, up to so many bytes: a peer that
    /// waits for room itself goes on. For those alone who know how much may come.
    pub fn read_ahead(&mut self, len_max: usize) {
        match &mut self.sealed {
            Some(sealed) => sealed.read_ahead(len_max),
            None => self.ahead.allow(len_max),
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
            None if self.ahead.is_readable() => Ok(self.ahead.read(bytes)),
            None => (&*self.handle.0).read(bytes),
        }
    }
}

impl Write for Stream {
    /// Writes. In TLS a stream can't be written to after an error: a part of a record may be on its way.
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let bytes = match &self.pace {
            None => bytes,
            Some(pace) => {
                // What is charged for is what one write takes.
                let len_max = if self.sealed.is_some() { TLS_WRITE_LEN } else { usize::MAX };
                let share = &bytes[..pace.share(bytes.len().min(len_max))];
                pace.wait(share.len());
                share
            }
        };
        match &mut self.sealed {
            Some(sealed) => sealed.write(&self.handle.0, bytes),
            None if self.ahead.is_allowed() && !bytes.is_empty() => self.ahead.write(&self.handle.0, bytes),
            None => (&*self.handle.0).write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests;
