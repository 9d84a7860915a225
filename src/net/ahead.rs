//! What a peer writes while a write to it waits for room: taken in, so that two who both write don't
//! wait for each other for ever.

use std::io;
use std::time::Instant;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, recv, send};
use socket2::Socket;

use crate::limits::AHEAD_READ_LEN;

/// Bytes that came in clear while a write waited.
#[derive(Debug, Default)]
pub(super) struct Ahead {
    bytes: Vec<u8>,
    used: usize,
    /// So many are taken in at the most; none where nobody asked for it.
    len_max: usize,
    /// The peer writes no more.
    is_ended: bool,
}

impl Ahead {
    /// From now on so many bytes are taken in at the most.
    pub(super) fn allow(&mut self, len_max: usize) {
        self.len_max = len_max;
    }

    /// Is anything taken in?
    pub(super) fn is_allowed(&self) -> bool {
        self.len_max > 0
    }

    /// Would a read return without asking the socket?
    pub(super) fn is_readable(&self) -> bool {
        self.used < self.bytes.len()
    }

    /// Hands out what is here; 0 where nothing is.
    pub(super) fn read(&mut self, bytes: &mut [u8]) -> usize {
        let waiting = &self.bytes[self.used..];
        let len = waiting.len().min(bytes.len());
        bytes[..len].copy_from_slice(&waiting[..len]);
        self.used += len;
        if self.used == self.bytes.len() {
            // What a long wait brought is not kept for the life of the connection.
            (self.bytes, self.used) = (Vec::new(), 0);
        }
        len
    }

    /// Writes some of `bytes`, as [`send_and_take`].
    pub(super) fn write(&mut self, socket: &Socket, bytes: &[u8]) -> io::Result<usize> {
        send_and_take(socket, bytes, |socket| self.take(socket))
    }

    fn take(&mut self, socket: &Socket) -> io::Result<bool> {
        if self.used > 0 {
            self.bytes.drain(..self.used);
            self.used = 0;
        }
        let start = self.bytes.len();
        let room = (self.len_max - start).min(AHEAD_READ_LEN);
        if self.is_ended || room == 0 {
            return Ok(false);
        }
        self.bytes.resize(start + room, 0);
        let received = recv(socket, &mut self.bytes[start..], RecvFlags::DONTWAIT);
        self.bytes.truncate(start + received.map_or(0, |(len, _)| len));
        match received {
            Ok((len, _)) => self.is_ended = len == 0,
            Err(Errno::AGAIN | Errno::INTR) => {}
            Err(errno) => return Err(errno.into()),
        }
        Ok(!self.is_ended)
    }
}

/// Sends some of `bytes`. As long as the socket has no room for any of them, `take` takes in what came; it
/// says whether it would take more. Where there is room that is one system call, as a blocking write is.
///
/// # Errors
/// `WouldBlock` where there was no room for the time that the socket allows a write; those of `take`, of
/// `send(2)` and of `poll(2)`.
pub(super) fn send_and_take(
    socket: &Socket, bytes: &[u8], mut take: impl FnMut(&Socket) -> io::Result<bool>,
) -> io::Result<usize> {
    let mut until = None;
    loop {
        match send(socket, bytes, SendFlags::DONTWAIT | SendFlags::NOSIGNAL) {
            Ok(len) => return Ok(len),
            Err(Errno::INTR) => continue,
            Err(Errno::AGAIN) => {}
            Err(errno) => return Err(errno.into()),
        }
        let takes_more = take(socket)?;
        let until: Option<Instant> = match until {
            Some(until) => until,
            None => *until.insert(socket.write_timeout()?.map(|stall| Instant::now() + stall)),
        };
        let left = until.map(|until| until.saturating_duration_since(Instant::now()));
        if left.is_some_and(|left| left.is_zero()) {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        // An end that was seen, and what there is no room for, would wake it again and again.
        let flags = if takes_more { PollFlags::OUT | PollFlags::IN } else { PollFlags::OUT };
        match poll(&mut [PollFd::new(socket, flags)], left.and_then(|left| Timespec::try_from(left).ok()).as_ref()) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};
    use std::thread;
    use std::time::Duration;

    use super::*;
    use crate::limits::{
        REPLIES_AHEAD_LEN_MAX, RETRY_FOR_DEFAULT, STALL_DEFAULT, TLS_HELLO_TIMEOUT, WINDOW_GROWN_MAX, WIRE_REPLY_LEN_MAX,
    };
    use crate::net::dial::Dialer;
    use crate::net::host_key::HostKey;
    use crate::net::tls::Client;
    use crate::net::{Listener, Stream, is_stall};
    use crate::stop::Stop;

    /// What a client has to say: more than all sockets hold.
    const CONTENT_LEN: usize = 16 * 1024 * 1024;

    const REPLY: [u8; WIRE_REPLY_LEN_MAX] = [7; WIRE_REPLY_LEN_MAX];

    /// The two ends of a connection whose sockets hold little.
    fn pair(in_tls: bool) -> (Stream, Stream) {
        let listener = Listener::bind(Some([127, 0, 0, 1].into()), 0, None).unwrap();
        let key = HostKey::for_one_job().unwrap();
        let dialer = Dialer::to_addresses(vec![listener.address().unwrap()], STALL_DEFAULT, RETRY_FOR_DEFAULT);
        let dialer = dialer.with_tls(in_tls.then(|| Client::pinned(key.fingerprint()).unwrap()));
        let stop = Stop::new().unwrap();
        thread::scope(|scope| {
            let client = scope.spawn(|| dialer.dial(&stop).unwrap());
            let (socket, _) = listener.accept(&Stop::new().unwrap()).unwrap().unwrap();
            socket.set_send_buffer_size(64 * 1024).unwrap();
            socket.set_recv_buffer_size(64 * 1024).unwrap();
            let mut server = listener.stream(socket, STALL_DEFAULT).unwrap();
            if in_tls {
                server.start_tls_server(&key.server(), &[], Instant::now() + TLS_HELLO_TIMEOUT).unwrap();
            }
            (client.join().unwrap(), server)
        })
    }

    /// Writes all replies of a window, each on its own, and reads only then.
    fn answer_first(server: &mut Stream) -> io::Result<()> {
        (0..WINDOW_GROWN_MAX).try_for_each(|_| server.write_all(&REPLY))?;
        let mut room = vec![0; 256 * 1024];
        let mut left = CONTENT_LEN;
        while left > 0 {
            left -= server.read(&mut room)?;
        }
        Ok(())
    }

    fn write_content(client: &mut Stream) -> io::Result<()> {
        let part = vec![3; 80 * 1024];
        let mut left = CONTENT_LEN;
        while left > 0 {
            let len = left.min(part.len());
            client.write_all(&part[..len])?;
            left -= len;
        }
        Ok(())
    }

    // E14
    #[test]
    fn a_peer_that_writes_a_whole_window_of_replies_first_is_no_deadlock() {
        for in_tls in [false, true] {
            let (mut client, mut server) = pair(in_tls);
            client.read_ahead(REPLIES_AHEAD_LEN_MAX);
            thread::scope(|scope| {
                scope.spawn(|| answer_first(&mut server).unwrap());
                write_content(&mut client).unwrap();
            });
            assert!(client.is_readable());
            let mut replies = vec![0; WINDOW_GROWN_MAX * REPLY.len()];
            client.read_exact(&mut replies).unwrap();
            assert!(replies.iter().all(|byte| *byte == 7));
            assert!(client.read_available(&mut replies).unwrap().is_none(), "nothing comes twice");
            drop(server);
            assert_eq!(client.read(&mut replies).unwrap(), 0, "the end is an end");
        }
    }

    #[test]
    fn without_it_both_would_wait_for_each_other() {
        for in_tls in [false, true] {
            let (mut client, mut server) = pair(in_tls);
            client.handle().limit_waits(Duration::from_millis(200)).unwrap();
            thread::scope(|scope| {
                scope.spawn(|| answer_first(&mut server).unwrap_err());
                assert!(is_stall(&write_content(&mut client).unwrap_err()));
                client.handle().reset();
            });
        }
    }

    #[test]
    fn no_more_is_taken_in_than_was_said_and_a_stall_is_a_stall() {
        for in_tls in [false, true] {
            let (mut client, mut server) = pair(in_tls);
            client.handle().limit_waits(Duration::from_millis(200)).unwrap();
            client.read_ahead(REPLIES_AHEAD_LEN_MAX);
            let written = thread::scope(|scope| {
                let endless = scope.spawn(|| (0..).take_while(|_| server.write_all(&REPLY).is_ok()).count());
                assert!(is_stall(&write_content(&mut client).unwrap_err()));
                client.handle().shutdown(std::net::Shutdown::Both);
                endless.join().unwrap()
            });
            // And what the sockets hold.
            assert!(written * REPLY.len() < REPLIES_AHEAD_LEN_MAX + 8 * 1024 * 1024, "{written}");
            let (mut taken, mut room) = (0, [0; 5000]);
            while let Ok(len @ 1..) = client.read(&mut room) {
                taken += len;
            }
            assert!(taken > REPLIES_AHEAD_LEN_MAX / 2, "{taken} of {written}");
        }
    }

    #[test]
    fn what_was_taken_in_is_read_between_writes_in_its_order() {
        for in_tls in [false, true] {
            let (mut client, mut server) = pair(in_tls);
            client.read_ahead(REPLIES_AHEAD_LEN_MAX);
            let numbers: Vec<u8> = (0..900_000_u32).map(|number| (number % 251) as u8).collect();
            thread::scope(|scope| {
                scope.spawn(|| {
                    for part in numbers.chunks(3000) {
                        server.write_all(part).unwrap();
                        server.read_exact(&mut [0; 30_000]).unwrap();
                    }
                });
                let (mut came, mut room) = (Vec::new(), [0; 700]);
                for _ in numbers.chunks(3000) {
                    client.write_all(&[1; 30_000]).unwrap();
                    if let Some(len) = client.read_available(&mut room).unwrap() {
                        came.extend_from_slice(&room[..len]);
                    }
                }
                while came.len() < numbers.len() {
                    let len = client.read(&mut room).unwrap();
                    came.extend_from_slice(&room[..len]);
                }
                assert!(came == numbers);
            });
        }
    }
}
