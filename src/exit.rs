//! The exit codes of both programs, and the one place where what happened becomes a code.

use crate::progress::Progress;

/// How a run of a program ended. (A command line that makes no sense ends in its parser, with 2.)
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Everything is there and verified.
    Complete = 0,
    /// It did not work.
    Failed = 1,
    /// Some entries failed or changed while they were read; the rest is there.
    Partial = 3,
    /// The other end did not want it, and nothing has landed.
    Refused = 4,
    /// Stopped by a signal with work left.
    Interrupted = 130,
}

impl Verdict {
    /// The verdict on a transfer that came to its end.
    #[must_use]
    pub fn of(progress: &Progress) -> Self {
        if progress.failed() == 0 { Self::Complete } else { Self::Partial }
    }

    /// The process's exit code.
    #[must_use]
    pub fn code(self) -> u8 {
        self as u8
    }

    /// The verdict in one word, as `--json` has it.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Complete => "complete",
            Self::Failed => "failed",
            Self::Partial => "partial",
            Self::Refused => "refused",
            Self::Interrupted => "interrupted",
        }
    }
}
