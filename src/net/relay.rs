//! A connection that is passed on: what comes from one end goes to the other, unseen.
//!
//! One thread has both directions. Each has a buffer, which is full while its far end takes nothing: then
//! its near end is not read, so that a fast one waits for a slow one as if they were connected.

use std::io;
use std::net::Shutdown;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{RecvFlags, SendFlags, recv, send};

use super::Handle;
use crate::limits::RELAY_BUFFER_LEN;

/// Copies between two sockets, both ways, until both have ended. `first` was read from `client` already. `pass` is
/// asked before so many bytes are sent on, and by 0 when an end has ended: it may wait, and ends it all by an error. At
/// most `share` bytes are read at once.
///
/// # Errors
/// An end broke, or took nothing for `stall`; those of `pass`. Then neither end takes or gives any more.
pub fn join(
    client: &Handle, server: &Handle, first: Vec<u8>, (share, stall): (usize, Duration),
    pass: &mut dyn FnMut(usize) -> io::Result<()>,
) -> io::Result<()> {
    let copied = copy([client, server], first, (share.clamp(1, RELAY_BUFFER_LEN), stall), pass);
    if copied.is_err() {
        // Each is to notice at once: what is on its way belongs to something broken.
        client.reset();
        server.reset();
    }
    copied
}

/// One direction.
struct Lane {
    buffer: Vec<u8>,
    start: usize,
    end: usize,
    /// Since when what waits in it has not become less.
    since: Instant,
    /// Nothing more comes in.
    is_ended: bool,
    /// And the far end was told.
    is_shut: bool,
}

impl Lane {
    fn holding(first: Vec<u8>) -> Self {
        Self { start: 0, end: first.len(), buffer: first, since: Instant::now(), is_ended: false, is_shut: false }
    }

    fn has_waiting(&self) -> bool {
        self.start < self.end
    }

    /// How long its far end may still take nothing.
    fn patience(&self, stall: Duration) -> Option<Duration> {
        self.has_waiting().then(|| stall.saturating_sub(self.since.elapsed()))
    }

    /// Reads what is here, where all that came before is gone.
    fn take_in(&mut self, near: &Handle, share: usize) -> io::Result<usize> {
        if self.buffer.len() < share {
            // Untouched pages of it cost nothing.
            self.buffer = vec![0; share];
        }
        match recv(&*near.0, &mut self.buffer[..share], RecvFlags::DONTWAIT) {
            Ok((0, _)) => {
                self.is_ended = true;
                Ok(0)
            }
            Ok((len, _)) => {
                (self.start, self.end, self.since) = (0, len, Instant::now());
                Ok(len)
            }
            Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => Ok(0),
            Err(errno) => Err(errno.into()),
        }
    }

    /// Sends what has room, and tells the far end when that was all.
    fn give_out(&mut self, far: &Handle) -> io::Result<()> {
        if self.has_waiting() {
            match send(&*far.0, &self.buffer[self.start..self.end], SendFlags::DONTWAIT | SendFlags::NOSIGNAL) {
                Ok(len) => (self.start, self.since) = (self.start + len, Instant::now()),
                Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
        if self.is_ended && !self.is_shut && !self.has_waiting() {
            far.shutdown(Shutdown::Write);
            self.is_shut = true;
        }
        Ok(())
    }
}

fn copy(
    ends: [&Handle; 2], first: Vec<u8>, (share, stall): (usize, Duration), pass: &mut dyn FnMut(usize) -> io::Result<()>,
) -> io::Result<()> {
    let mut lanes = [Lane::holding(first), Lane::holding(Vec::new())];
    // An end that was shut both ways says so for ever: it is asked only where there is something to do with it.
    let mut are_hung = [false; 2];
    pass(lanes[0].end)?;
    lanes[0].give_out(ends[1])?;
    while lanes.iter().any(|lane| !lane.is_shut) {
        let wanted = [0, 1].map(|end| {
            let (from, to) = (&lanes[end], &lanes[1 - end]);
            let reads = if from.is_ended || from.has_waiting() { PollFlags::empty() } else { PollFlags::IN };
            reads | if to.has_waiting() { PollFlags::OUT } else { PollFlags::empty() }
        });
        let is_done = [0, 1].map(|end| lanes[end].is_ended && lanes[1 - end].is_shut);
        let asked: Vec<usize> = (0..2).filter(|end| !(is_done[*end] || are_hung[*end] && wanted[*end].is_empty())).collect();
        let mut polled: Vec<PollFd<'_>> = asked.iter().map(|end| PollFd::new(&*ends[*end].0, wanted[*end])).collect();
        // Who has nothing to say may be silent for as long as it likes; who is sent something takes it.
        let patience = lanes.iter().filter_map(|lane| lane.patience(stall)).min();
        if patience.is_some_and(|patience| patience.is_zero()) {
            return Err(io::ErrorKind::TimedOut.into());
        }
        match poll(&mut polled, patience.and_then(|patience| Timespec::try_from(patience).ok()).as_ref()) {
            Ok(_) => {}
            Err(rustix::io::Errno::INTR) => continue,
            Err(errno) => return Err(errno.into()),
        }
        for (end, polled) in asked.into_iter().zip(&polled) {
            are_hung[end] |= polled.revents().contains(PollFlags::HUP);
            // One that was shut down both ways, and not from here, takes and gives nothing any more.
            let is_cut = are_hung[end] && !lanes[1 - end].is_shut;
            if is_cut || polled.revents().contains(PollFlags::ERR) {
                return Err(io::ErrorKind::ConnectionReset.into());
            }
        }
        for near in 0..2 {
            if !lanes[near].is_ended && !lanes[near].has_waiting() {
                match lanes[near].take_in(ends[near], share)? {
                    // It may be an end that was made here: the other one is not waited for then.
                    0 if lanes[near].is_ended => pass(0)?,
                    0 => {}
                    len => pass(len)?,
                }
            }
            lanes[near].give_out(ends[1 - near])?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::STALL_DEFAULT;
    use crate::net::Stream;
    use socket2::{Domain, Socket, Type};
    use std::io::{Read as _, Write as _};
    use std::thread;

    fn pair() -> (Stream, Stream) {
        let (one, other) = Socket::pair(Domain::UNIX, Type::STREAM, None).unwrap();
        let stream = |socket| Stream::new(socket, STALL_DEFAULT, false).unwrap();
        (stream(one), stream(other))
    }

    #[allow(clippy::disallowed_methods, reason = "the peer is this test")]
    fn read_all(stream: &mut Stream) -> Vec<u8> {
        let mut bytes = Vec::new();
        stream.read_to_end(&mut bytes).unwrap();
        bytes
    }

    #[test]
    fn all_goes_on_both_ways_and_an_end_of_one_direction_is_no_end_of_the_other() {
        let ((mut client, near), (far, mut server)) = (pair(), pair());
        let bytes: Vec<u8> = (0..3_000_000_u32).map(|index| (index % 251) as u8).collect();
        let mut passed = 0;
        thread::scope(|scope| {
            let joined = scope.spawn(|| {
                join(near.handle(), far.handle(), b"first".to_vec(), (100_000, STALL_DEFAULT), &mut |len| {
                    passed += len;
                    Ok(())
                })
            });
            scope.spawn(|| {
                client.write_all(&bytes).unwrap();
                client.end_writing().unwrap();
            });
            assert!(read_all(&mut server) == [&b"first"[..], &bytes].concat());
            server.write_all(b"an answer after the end").unwrap();
            server.end_writing().unwrap();
            joined.join().unwrap().unwrap();
        });
        assert_eq!(read_all(&mut client), b"an answer after the end");
        assert_eq!(passed, bytes.len() + 5 + 23);
    }

    #[test]
    fn one_who_is_cut_off_or_may_not_go_on_does_not_wait_for_the_other_end() {
        for how in [Shutdown::Read, Shutdown::Both] {
            let ((_client, near), (far, _silent)) = (pair(), pair());
            let mut asked = 0;
            thread::scope(|scope| {
                let joined = scope.spawn(|| {
                    join(near.handle(), far.handle(), Vec::new(), (1 << 16, STALL_DEFAULT), &mut |_| {
                        asked += 1;
                        if asked == 1 { Ok(()) } else { Err(io::ErrorKind::ConnectionAborted.into()) }
                    })
                });
                near.handle().shutdown(how);
                assert!(joined.join().unwrap().is_err(), "{how:?}");
            });
        }
    }

    #[test]
    fn who_takes_nothing_or_may_not_go_on_ends_it_for_both() {
        let stall = Duration::from_millis(30);
        for may in [true, false] {
            let ((mut client, near), (far, mut server)) = (pair(), pair());
            thread::scope(|scope| {
                let joined = scope.spawn(|| {
                    join(near.handle(), far.handle(), Vec::new(), (1 << 16, stall), &mut |len| match may || len == 0 {
                        true => Ok(()),
                        false => Err(io::ErrorKind::ConnectionAborted.into()),
                    })
                });
                assert!(client.write_all(&vec![0; 8_000_000]).is_err());
                let error = joined.join().unwrap().unwrap_err();
                assert_eq!(error.kind() == io::ErrorKind::TimedOut, may, "{error}");
            });
            while matches!(server.read(&mut [0; 1 << 16]), Ok(1..)) {}
        }
    }

    #[test]
    fn who_has_ended_and_takes_nothing_is_not_waited_for_longer_than_a_stall() {
        let stall = Duration::from_millis(50);
        // Whoever of both ends first: then what comes from the other has nobody who takes it.
        for ends_first in [0, 1] {
            let (mut one, mut other) = (pair(), pair());
            let (first, second) = if ends_first == 0 { (&mut one.0, &mut other.1) } else { (&mut other.1, &mut one.0) };
            first.end_writing().unwrap();
            thread::scope(|scope| {
                let joined =
                    scope.spawn(|| join(one.1.handle(), other.0.handle(), Vec::new(), (1 << 16, stall), &mut |_| Ok(())));
                second.handle().limit_waits(Duration::from_secs(5)).unwrap();
                // It fills all that lies between them.
                while second.write(&[7; 1 << 16]).is_ok() {}
                let error = joined.join().unwrap().unwrap_err();
                assert_eq!(error.kind(), io::ErrorKind::TimedOut, "{error}");
            });
        }
        // And one that says its last word into full buffers, and is gone.
        let (mut one, mut other) = (pair(), pair());
        one.0.end_writing().unwrap();
        let before = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
        thread::scope(|scope| {
            let joined = scope.spawn(|| {
                let joined = join(one.1.handle(), other.0.handle(), Vec::new(), (1 << 16, stall), &mut |_| Ok(()));
                (joined, rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime).tv_nsec)
            });
            other.1.handle().limit_waits(Duration::from_secs(5)).unwrap();
            // As much as two sockets hold, so that nobody waits here.
            let _ = other.1.write(&[7; 300_000]);
            let _ = other.1.end_writing();
            let (joined, cpu) = joined.join().unwrap();
            assert!(joined.is_err() && cpu - before.tv_nsec < 40_000_000, "{cpu}");
        });
    }
}
