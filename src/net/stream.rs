//! A connected socket: what is read and written, and what others may do to it meanwhile.

use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::net::{RecvFlags, recv};
use socket2::{Socket, TcpKeepalive};

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

/// Two-way bytes over a socket.
#[derive(Debug)]
pub struct Stream {
    handle: Handle,
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
        Ok(Self { handle })
    }

    /// A hold on the socket.
    #[must_use]
    pub fn handle(&self) -> &Handle {
        &self.handle
    }

    /// Reads what is here already; `None` where nothing is.
    ///
    /// # Errors
    /// Those of `recv(2)`.
    pub fn read_available(&self, bytes: &mut [u8]) -> io::Result<Option<usize>> {
        match recv(&*self.handle.0, bytes, RecvFlags::DONTWAIT) {
            Ok((len, _)) => Ok(Some(len)),
            Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => Ok(None),
            Err(errno) => Err(errno.into()),
        }
    }
}

impl Read for Stream {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        (&*self.handle.0).read(bytes)
    }
}

impl Write for Stream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        (&*self.handle.0).write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
