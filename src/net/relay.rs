//! A connection that is passed on: what comes from one end goes to the other, unseen.
//!
//! One thread has both directions. Each has a buffer, which is full while its far end takes nothing: then
//! its near end is not read, so that a fast one waits for a slow one as if they were connected.

use std::io;
use std::net::Shutdown;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{RecvFlags, SendFlags, recv, send};

use super::Handle;
use crate::limits::RELAY_BUFFER_LEN;

/// Copies between two sockets, both ways, until both have ended. `first` was read from `client` already. `pass` is
/// asked before so many bytes are sent on, and by 0 when an end has ended: it may wait, and ends it all by an error. At most `share` bytes are read
/// at once.
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
#[derive(Default)]
struct Lane {
    buffer: Vec<u8>,
    start: usize,
    end: usize,
    /// Nothing more comes in.
    is_ended: bool,
    /// And the far end was told.
    is_shut: bool,
}

impl Lane {
    fn has_waiting(&self) -> bool {
        self.start < self.end
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
                (self.start, self.end) = (0, len);
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
                Ok(len) => self.start += len,
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
    let stall = Timespec::try_from(stall).ok();
    let mut lanes = [Lane { end: first.len(), buffer: first, ..Lane::default() }, Lane::default()];
    pass(lanes[0].end)?;
    lanes[0].give_out(ends[1])?;
    while lanes.iter().any(|lane| !lane.is_shut) {
        let wanted = [0, 1].map(|end| {
            let (from, to) = (&lanes[end], &lanes[1 - end]);
            let reads = if from.is_ended || from.has_waiting() { PollFlags::empty() } else { PollFlags::IN };
            reads | if to.has_waiting() { PollFlags::OUT } else { PollFlags::empty() }
        });
        // An end with which all is done would be reported for ever.
        let is_done = [0, 1].map(|end| lanes[end].is_ended && lanes[1 - end].is_shut);
        let mut polled: Vec<PollFd<'_>> =
            (0..2).filter(|end| !is_done[*end]).map(|end| PollFd::new(&*ends[end].0, wanted[end])).collect();
        // Who has nothing to say may be silent for as long as it likes; who is sent something takes it.
        let timeout = if lanes.iter().any(Lane::has_waiting) { stall.as_ref() } else { None };
        match poll(&mut polled, timeout) {
            Ok(0) => return Err(io::ErrorKind::TimedOut.into()),
            Ok(_) => {}
            Err(rustix::io::Errno::INTR) => continue,
            Err(errno) => return Err(errno.into()),
        }
        let reported = (0..2).filter(|end| !is_done[*end]).zip(&polled);
        for (end, polled) in reported {
            // One that was shut down both ways, and not from here, takes and gives nothing any more.
            let is_cut = polled.revents().contains(PollFlags::HUP) && !lanes[1 - end].is_shut;
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
}
