//! What passes between this program and the one that looks after services: a socket to listen with, and word of how
//! things stand (systemd's `sd_listen_fds(3)` and `sd_notify(3)`).

use anyhow::{Context as _, ensure};
use listenfd::ListenFd;
use parallel_transfer::net::Listener;
use sd_notify::NotifyState;

/// The socket that this program was started with, if it was. To be asked before any descriptor is opened that is
/// to stay open, and before any thread starts.
pub(crate) fn take_socket() -> anyhow::Result<Option<Listener>> {
    // It looks at the process that the sockets are for, and keeps them from processes that this one starts.
    let count = sd_notify::listen_fds().context("can't take the socket that was passed (LISTEN_FDS)")?.len();
    if count == 0 {
        return Ok(None);
    }
    ensure!(count == 1, "{count} sockets were passed (LISTEN_FDS); this program listens with one");
    let not_it = "descriptor 3 that was passed (LISTEN_FDS) is no TCP socket that listens";
    let socket = ListenFd::from_env().take_tcp_listener(0).context(not_it)?.context(not_it)?;
    Ok(Some(Listener::adopt(socket).context(not_it)?))
}

/// All is ready; `status` is for people.
pub(crate) fn tell_ready(status: &str) {
    tell(&[NotifyState::Ready, NotifyState::Status(status)]);
}

/// The configuration is being read again; [`tell_ready`] says that it is done.
pub(crate) fn tell_reloading() {
    match NotifyState::monotonic_usec_now() {
        Ok(now) => tell(&[NotifyState::Reloading, now]),
        Err(_) => tell(&[NotifyState::Reloading]),
    }
}

/// No new work is taken.
pub(crate) fn tell_stopping() {
    tell(&[NotifyState::Stopping, NotifyState::Status("stopping: waiting for what is under way")]);
}

fn tell(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::warn!("can't tell the service manager how things stand (NOTIFY_SOCKET): {error}");
    }
}
