//! Signals that ask a program to end, or to read its configuration again.

use std::io;

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use crate::stop::Stop;

/// From now on such signals, unless they were ignored so far (`nohup` does that), wait for [`forward`] instead of ending the program.
///
/// # Errors
/// The handlers can't be set.
pub fn listen() -> io::Result<Signals> {
    let ignored = ignored_mask();
    Signals::new([SIGINT, SIGTERM, SIGHUP].into_iter().filter(|signal| ignored >> (signal - 1) & 1 == 0))
}

/// The signals that this process ignores, signal 1 in the lowest bit (proc(5), `SigIgn`).
fn ignored_mask() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    line.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or_default()
}

/// Sets `stop` at the first signal, having called `tell`; returns at the second, when the program should
/// end at once. Where there is a `hang_up`, SIGHUP asks for that alone.
pub fn forward(mut signals: Signals, stop: &Stop, tell: impl Fn(), hang_up: Option<&dyn Fn()>) {
    for signal in signals.forever() {
        match hang_up {
            Some(hang_up) if signal == SIGHUP => hang_up(),
            _ if stop.is_asked() => return,
            _ => {
                tell();
                stop.ask();
            }
        }
    }
}
