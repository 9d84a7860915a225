//! What a signal ends: the command that runs, not the prompt; another signal than Ctrl-C's ends both.

use std::os::fd::AsFd as _;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::{io, thread};

use parallel_transfer::exit::Verdict;
use parallel_transfer::net::Handle;
use parallel_transfer::signals;
use parallel_transfer::stop::Stop;
use rustix::termios::{OptionalActions, Termios, tcgetattr, tcsetattr};
use signal_hook::consts::SIGINT;

/// Said of a command that was interrupted.
#[derive(Debug, Clone, Copy, thiserror::Error)]
#[error("interrupted")]
pub(super) struct Interrupted;

/// What there is to be ended.
#[derive(Debug, Default)]
pub(super) struct Interrupt(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    /// Of the command that runs.
    stop: Option<Arc<Stop>>,
    /// The stream whose answer it waits for.
    stream: Option<Handle>,
    /// Is the program to end?
    is_over: bool,
}

impl Interrupt {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A command begins: gives what it is to look at.
    ///
    /// # Errors
    /// No descriptor to be had.
    pub(super) fn begin(&self) -> io::Result<Arc<Stop>> {
        let stop = Arc::new(Stop::new()?);
        let mut state = self.lock();
        if state.is_over {
            stop.ask();
        }
        state.stop = Some(Arc::clone(&stop));
        Ok(stop)
    }

    /// The command has ended.
    pub(super) fn end(&self) {
        let mut state = self.lock();
        (state.stop, state.stream) = (None, None);
    }

    /// From now on the command waits for this stream, or for none.
    pub(super) fn hold(&self, stream: Option<&Handle>) {
        let mut state = self.lock();
        if let (Some(stop), Some(stream)) = (&state.stop, stream)
            && stop.is_asked()
        {
            stream.reset();
        }
        state.stream = stream.cloned();
    }

    /// Is the program to end?
    pub(super) fn is_over(&self) -> bool {
        self.lock().is_over
    }

    /// Ends the command that runs; false where there is none.
    fn ask(&self, is_over: bool) -> bool {
        let mut state = self.lock();
        state.is_over |= is_over;
        if let Some(stream) = &state.stream {
            // So that the receiver ends as well what it was asked for.
            stream.reset();
        }
        state.stop.as_ref().inspect(|stop| stop.ask()).is_some()
    }

    /// From now on signals go to what runs. Ctrl-C ends a script; a prompt goes on.
    ///
    /// # Errors
    /// The handlers can't be set.
    pub(super) fn listen(self: &Arc<Self>, is_interactive: bool) -> io::Result<()> {
        let (mut signals, this) = (signals::listen()?, Arc::clone(self));
        let terminal = tcgetattr(io::stdin().as_fd()).ok();
        thread::Builder::new().name("signals".to_owned()).spawn(move || {
            for signal in signals.forever() {
                let was_over = this.is_over();
                let is_over = signal != SIGINT || !is_interactive;
                if !this.ask(is_over) && is_over || was_over {
                    leave(terminal.as_ref());
                }
            }
        })?;
        Ok(())
    }
}

/// Ends the program from where it waits for a line, with the terminal as it was.
fn leave(terminal: Option<&Termios>) {
    if let Some(terminal) = terminal {
        let _ = tcsetattr(io::stdin().as_fd(), OptionalActions::Now, terminal);
    }
    #[allow(clippy::disallowed_methods, reason = "nothing runs, or it was asked to end before")]
    std::process::exit(i32::from(Verdict::Interrupted.code()));
}
