//! Why work on a control connection ended.

use std::io;

/// What another stream may mend, and what nothing will.
#[derive(Debug)]
pub(super) enum Trouble {
    /// The stream failed: another may do.
    Broken(io::Error),
    /// Nothing will do.
    Fatal(anyhow::Error),
}

impl From<io::Error> for Trouble {
    fn from(error: io::Error) -> Self {
        Self::Broken(error)
    }
}
