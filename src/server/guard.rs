//! Who may connect, and how many at once.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv6Addr, Shutdown};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use super::homes::Home;
use super::penalties::address_of;
use super::session::Session;
use crate::limits::JOIN_GRACE;
use crate::net::{Handle, Peer};
use crate::stop::Stop;

/// The addresses that may connect: loopback, private and link-local ones, and the networks added.
#[derive(Debug, Clone, Default)]
pub struct Allowed(pub Vec<IpNet>);

impl Allowed {
    /// All addresses: something else says who may.
    #[must_use]
    pub fn everyone() -> Self {
        Self(vec![IpNet::V4(Ipv4Net::default()), IpNet::V6(Ipv6Net::default())])
    }

    /// May `address` connect?
    #[must_use]
    pub fn holds(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        let near = match address {
            IpAddr::V4(v4) => v4.is_loopback() || v4.is_private() || v4.is_link_local(),
            IpAddr::V6(v6) => v6 == Ipv6Addr::LOCALHOST || v6.is_unique_local() || v6.is_unicast_link_local(),
        };
        near || self.0.iter().any(|network| network.contains(&address))
    }
}

/// The connections being served.
#[derive(Debug, Default)]
pub(super) struct Guard {
    inside: Mutex<BTreeMap<u64, Arc<Inside>>>,
    left: Condvar,
}

#[derive(Debug)]
struct Inside {
    handle: Handle,
    peer: Peer,
    /// It sent a byte at some time.
    spoke: AtomicBool,
    /// It has to join a job within a time.
    joining: AtomicBool,
    entered: Instant,
    /// It is between two frames.
    idle: AtomicBool,
    /// The job that it works on.
    session: OnceLock<Arc<Session>>,
    /// It was cut off because others needed the room, or time was up.
    cut: AtomicBool,
}

/// A place among the connections served; left when dropped.
#[derive(Debug)]
pub(super) struct Slot<'a> {
    guard: &'a Guard,
    number: u64,
    inside: Arc<Inside>,
}

/// How long to wait between two looks at what nobody reports: the flag that says stop, how many may be
/// inside, whether jobs have ended.
const LOOK: Duration = Duration::from_millis(200);

impl Guard {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<u64, Arc<Inside>>> {
        self.inside.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a connection in. Where there is no room, the one that was silent longest and never
    /// sent a byte makes it; where all have spoken, waits until one leaves, or `connections_max`,
    /// which may change meanwhile, has grown. `None` when asked to stop.
    pub(super) fn enter(
        &self, handle: &Handle, peer: Peer, connections_max: impl Fn() -> usize, stop: &Stop,
    ) -> Option<Slot<'_>> {
        let mut inside = self.lock();
        while inside.len() >= connections_max().max(1) {
            if stop.is_asked() {
                return None;
            }
            if let Some(idler) = idler_of(inside.values()) {
                idler.make_room_for(peer);
            }
            inside = self.left.wait_timeout(inside, LOOK).unwrap_or_else(PoisonError::into_inner).0;
        }
        let number = inside.last_key_value().map_or(0, |(last, _)| last + 1);
        let flag = AtomicBool::new;
        let session = OnceLock::new();
        let (spoke, idle, cut, joining, entered) = (flag(false), flag(true), flag(false), flag(false), Instant::now());
        let one = Arc::new(Inside { handle: handle.clone(), peer, spoke, joining, entered, idle, session, cut });
        inside.insert(number, Arc::clone(&one));
        Some(Slot { guard: self, number, inside: one })
    }

    /// Ends the reading of all who have nothing to do; what they were sent already they still get.
    pub(super) fn wake_idle(&self) {
        for one in self.lock().values().filter(|one| one.is_idle()) {
            one.handle.shutdown(Shutdown::Read);
        }
    }

    /// Waits until nobody who is left has anything to do, at most until `deadline`.
    pub(super) fn wait_until_idle(&self, deadline: Instant) {
        let mut inside = self.lock();
        while inside.values().any(|one| !one.is_idle()) {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            inside = self.left.wait_timeout(inside, left.min(LOOK)).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Is there room for one more from this address? Where there are `max` already, the one that was silent
    /// longest makes it.
    pub(super) fn has_room_for(&self, peer: Peer, max: usize) -> bool {
        let inside = self.lock();
        let Some(address) = address_of(peer).filter(|_| inside.len() >= max) else { return true };
        let is_neighbour = |one: &&Arc<Inside>| address_of(one.peer) == Some(address) && !one.cut.load(Ordering::Relaxed);
        if inside.values().filter(is_neighbour).count() < max {
            return true;
        }
        match idler_of(inside.values().filter(is_neighbour)) {
            Some(idler) => {
                idler.make_room_for(peer);
                true
            }
            None => false,
        }
    }

    /// Connections of the account that a home is of.
    pub(super) fn count_of(&self, home: &Arc<Home>) -> usize {
        let is_same = |other: &Arc<Session>| Arc::ptr_eq(&other.home, home);
        self.lock().values().filter(|one| one.session.get().is_some_and(is_same)).count()
    }

    /// Ends the reading of those whose sessions must end: what they were answered they still get, and why.
    pub(super) fn wake_over(&self) {
        for one in self.lock().values().filter(|one| one.session.get().is_some_and(|session| session.over().is_some())) {
            one.handle.shutdown(Shutdown::Read);
        }
    }

    /// Waits until all have left; false when some are left at the deadline.
    pub(super) fn wait_until_empty(&self, deadline: Instant) -> bool {
        let mut inside = self.lock();
        while !inside.is_empty() {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            inside = self.left.wait_timeout(inside, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        true
    }

    /// Shuts all down that are left.
    pub(super) fn cut_all(&self) {
        for one in self.lock().values() {
            tracing::warn!("{}: cut off, time to end is over", one.peer);
            one.cut.store(true, Ordering::Relaxed);
            one.handle.reset();
        }
    }
}

/// The oldest of those that never sent a byte; where there is none, of those that take long to join a job.
fn idler_of<'a>(mut all: impl Iterator<Item = &'a Arc<Inside>> + Clone) -> Option<&'a Arc<Inside>> {
    // Numbers grow: the first is the oldest.
    all.clone().find(|one| one.is_silent()).or_else(|| all.find(|one| one.is_slow_to_join()))
}

impl Inside {
    fn is_slow_to_join(&self) -> bool {
        let is_joining = self.joining.load(Ordering::Relaxed) && self.session.get().is_none();
        is_joining && !self.cut.load(Ordering::Relaxed) && self.entered.elapsed() >= JOIN_GRACE
    }

    /// Is it between two frames, and in no job that goes on?
    fn is_idle(&self) -> bool {
        self.idle.load(Ordering::SeqCst) && self.session.get().is_none_or(|session| session.has_ended())
    }

    /// Did it never send a byte? One that was told to go is on its way.
    fn is_silent(&self) -> bool {
        !self.spoke.load(Ordering::Relaxed) && !self.cut.load(Ordering::Relaxed) && !self.handle.is_readable()
    }

    fn make_room_for(&self, peer: Peer) {
        tracing::debug!("{}: silent or slow to join a job, makes room for {peer}", self.peer);
        self.cut.store(true, Ordering::Relaxed);
        self.handle.reset();
    }
}

impl Slot<'_> {
    pub(super) fn handle(&self) -> &Handle {
        &self.inside.handle
    }

    pub(super) fn peer(&self) -> Peer {
        self.inside.peer
    }

    /// Notes that the peer sent something.
    pub(super) fn set_spoken(&self) {
        self.inside.spoke.store(true, Ordering::Relaxed);
    }

    /// Notes that it has to join a job within a time.
    pub(super) fn set_joining(&self) {
        self.inside.joining.store(true, Ordering::Relaxed);
    }

    /// Notes whether the connection is between two frames.
    pub(super) fn set_idle(&self, idle: bool) {
        self.inside.idle.store(idle, Ordering::SeqCst);
    }

    /// Notes the job that it works on from now on.
    pub(super) fn set_session(&self, session: &Arc<Session>) {
        // A connection joins once.
        let _ = self.inside.session.set(Arc::clone(session));
    }

    /// Connections of the account that a home is of.
    pub(super) fn count_of(&self, home: &Arc<Home>) -> usize {
        self.guard.count_of(home)
    }

    /// Was it cut off from our side?
    pub(super) fn is_cut(&self) -> bool {
        self.inside.cut.load(Ordering::Relaxed)
    }
}

impl Drop for Slot<'_> {
    fn drop(&mut self) {
        self.guard.lock().remove(&self.number);
        self.guard.left.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn near_addresses_are_allowed_and_networks_widen_that() {
        let allowed = Allowed(vec!["203.0.113.0/24".parse().unwrap(), "2001:db8::/32".parse().unwrap()]);
        for near in [
            "127.0.0.1",
            "127.9.9.9",
            "10.1.2.3",
            "172.16.0.1",
            "192.168.1.1",
            "169.254.1.1",
            "::1",
            "fe80::1",
            "fd00::1",
            "::ffff:10.0.0.1",
        ] {
            assert!(Allowed::default().holds(near.parse().unwrap()), "{near}");
        }
        for far in ["203.0.113.7", "2001:db8::1", "::ffff:203.0.113.7"] {
            assert!(!Allowed::default().holds(far.parse().unwrap()), "{far}");
            assert!(allowed.holds(far.parse().unwrap()), "{far}");
        }
        for anyone in ["8.8.8.8", "2001:db9::1", "::ffff:8.8.8.8"] {
            assert!(Allowed::everyone().holds(anyone.parse().unwrap()), "{anyone}");
        }
        for far in ["0.0.0.0", "172.32.0.1", "8.8.8.8", "::", "2001:db9::1"] {
            assert!(!allowed.holds(far.parse().unwrap()), "{far}");
        }
    }
}
