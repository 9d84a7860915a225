//! Waiting for a socket: until a deadline, and as long as nobody asks to stop.

use std::time::Instant;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use socket2::Socket;

use crate::stop::Stop;

/// Waits until the socket is ready; false when the deadline came first, or `stop` was asked.
pub(super) fn ready(socket: &Socket, flags: PollFlags, deadline: Option<Instant>, stop: Option<&Stop>) -> bool {
    loop {
        let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
        if left.is_some_and(|left| left.is_zero()) || stop.is_some_and(Stop::is_asked) {
            return false;
        }
        let timeout = left.and_then(|left| Timespec::try_from(left).ok());
        let socket = PollFd::new(socket, flags);
        let polled: &mut [PollFd<'_>] = match stop {
            Some(stop) => &mut [socket, PollFd::new(stop, PollFlags::IN)],
            None => &mut [socket],
        };
        // An interrupted wait is a short one.
        if let Ok(1..) = poll(polled, timeout.as_ref())
            && !polled[0].revents().is_empty()
        {
            return true;
        }
    }
}
