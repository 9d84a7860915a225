//! Signals that ask a program to end.

use std::io;

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use crate::stop::Stop;

/// From now on such signals wait for [`forward`] instead of ending the program.
///
/// # Errors
/// The handlers can't be set.
pub fn listen() -> io::Result<Signals> {
    Signals::new([SIGINT, SIGTERM, SIGHUP])
}

/// Sets `stop` at the first signal; returns at the second, when the program should end at once.
pub fn forward(mut signals: Signals, stop: &Stop) {
    for _ in signals.forever() {
        if stop.is_asked() {
            return;
        }
        stop.ask();
    }
}
