//! The start of a connection that joins a session: what is said there is answered before all else.

use std::io;

use crate::protocol::{Answer, Reply, Status};

/// Replies to what came first on a connection that are due still: a welcome, and the answer to the joining.
#[derive(Debug, Clone, Copy)]
pub(super) struct Starting(usize);

impl Starting {
    /// So many are due, as [`Session::encode_start`](crate::protocol::Session::encode_start) says.
    #[must_use]
    pub(super) fn of(due: usize) -> Self {
        Self(due)
    }

    /// Is none due any more?
    #[must_use]
    pub(super) fn is_over(self) -> bool {
        self.0 == 0
    }

    /// Takes the next reply of the connection; gives it back where it is one to something later.
    ///
    /// # Errors
    /// A refusal: `PermissionDenied` of the start; `Other` later, when it is about one frame, which may have
    /// been damaged: another connection may do. `InvalidData` where it is not its turn.
    pub(super) fn take(&mut self, reply: Reply) -> io::Result<Option<Reply>> {
        match reply {
            Reply::Heartbeat => Ok(None),
            Reply::Refused(why) if self.is_over() => Err(io::Error::other(why)),
            Reply::Refused(why) => Err(io::Error::new(io::ErrorKind::PermissionDenied, why)),
            reply if self.is_over() => Ok(Some(reply)),
            Reply::Welcome { .. } if self.0 == 2 => {
                self.0 = 1;
                Ok(None)
            }
            Reply::Answer(Answer { status: Status::Stored, .. }) if self.0 == 1 => {
                self.0 = 0;
                Ok(None)
            }
            _ => Err(invalid("a reply out of turn")),
        }
    }
}

/// The error of a peer that says what makes no sense.
pub(super) fn invalid(why: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why)
}
