//! What wrong logins cost the address that they come from: time that grows, and in the end any answer
//! but no.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::limits::{LOGIN_DELAY_MAX, LOGIN_DELAY_MIN, PENALTIES_MAX, PENALTY_TIME};
use crate::net::Peer;

/// The addresses that wrong logins came from lately.
#[derive(Debug, Default)]
pub(super) struct Penalties {
    failures: Mutex<HashMap<IpAddr, Failures>>,
}

#[derive(Debug, Clone, Copy)]
struct Failures {
    count: u32,
    last: Instant,
}

impl Penalties {
    fn lock(&self) -> MutexGuard<'_, HashMap<IpAddr, Failures>> {
        self.failures.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// May someone at this address try to log in? `tries_max` wrong logins from it are answered within
    /// [`PENALTY_TIME`].
    ///
    /// # Errors
    /// Not for this long.
    pub(super) fn check(&self, peer: Peer, tries_max: u32, now: Instant) -> Result<(), Duration> {
        let Some(address) = address_of(peer) else { return Ok(()) };
        match self.lock().get(&address) {
            Some(failures) if failures.count >= tries_max.max(1) => {
                let left = PENALTY_TIME.saturating_sub(now.saturating_duration_since(failures.last));
                if left.is_zero() { Ok(()) } else { Err(left) }
            }
            _ => Ok(()),
        }
    }

    /// Notes a try that failed, or that anyone could make; gives the time that its answer is to wait.
    ///
    /// # Errors
    /// As [`Penalties::check`]: of tries that were made at once, before any was noted, no more are answered.
    pub(super) fn note(&self, peer: Peer, tries_max: u32, now: Instant) -> Result<Duration, Duration> {
        let Some(address) = address_of(peer) else { return Ok(Duration::ZERO) };
        let mut failures = self.lock();
        if failures.len() >= PENALTIES_MAX && !failures.contains_key(&address) {
            failures.retain(|_, failures| !failures.is_over(now));
            // Whoever has that many addresses is slowed down by the hashes alone.
            if failures.len() >= PENALTIES_MAX
                && let Some(oldest) = failures.iter().min_by_key(|(_, failures)| failures.last).map(|(address, _)| *address)
            {
                failures.remove(&oldest);
            }
        }
        let entry = failures.entry(address).or_insert(Failures { count: 0, last: now });
        if entry.is_over(now) {
            entry.count = 0;
        } else if entry.count >= tries_max.max(1) {
            return Err(PENALTY_TIME.saturating_sub(now.saturating_duration_since(entry.last)));
        }
        entry.count = entry.count.saturating_add(1);
        entry.last = now;
        Ok(LOGIN_DELAY_MIN.saturating_mul(1 << (entry.count - 1).min(16)).min(LOGIN_DELAY_MAX))
    }
}

impl Failures {
    fn is_over(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.last) >= PENALTY_TIME
    }
}

/// What one host can't change at will: of an IPv6 address the network (RFC 4291, section 2.5.1).
pub(super) fn address_of(peer: Peer) -> Option<IpAddr> {
    let Peer::Host(address) = peer else { return None };
    Some(match address.ip().to_canonical() {
        IpAddr::V6(v6) => Ipv6Addr::from_bits(v6.to_bits() & !u128::from(u64::MAX)).into(),
        v4 => v4,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(address: &str) -> Peer {
        Peer::Host((address.parse::<IpAddr>().unwrap(), 1).into())
    }

    // B17
    #[test]
    fn wrong_logins_cost_time_that_grows_and_then_nobody_listens_to_that_network() {
        let (penalties, now) = (Penalties::default(), Instant::now());
        let mut last = Duration::ZERO;
        for index in 0..5 {
            let address = format!("2001:db8::{index}");
            assert_eq!(penalties.check(peer(&address), 5, now), Ok(()));
            let delay = penalties.note(peer(&address), 5, now).unwrap();
            assert!(delay > last && delay <= LOGIN_DELAY_MAX, "{delay:?} after {last:?}");
            last = delay;
        }
        assert_eq!(penalties.check(peer("2001:db8::ffff"), 5, now), Err(PENALTY_TIME));
        assert_eq!(penalties.note(peer("2001:db8::ffff"), 5, now), Err(PENALTY_TIME));
        assert_eq!(penalties.check(peer("2001:db8:0:1::1"), 5, now), Ok(()));
        assert_eq!(penalties.check(Peer::Local, 5, now), Ok(()));
        let later = now + PENALTY_TIME;
        assert_eq!(penalties.check(peer("2001:db8::1"), 5, later), Ok(()));
        assert_eq!(penalties.note(peer("2001:db8::1"), 5, later), Ok(LOGIN_DELAY_MIN));
    }

    #[test]
    fn one_who_has_many_addresses_fills_no_memory() {
        let (penalties, now) = (Penalties::default(), Instant::now());
        for index in 0..PENALTIES_MAX + 100 {
            let address = IpAddr::from(std::net::Ipv4Addr::from_bits(index as u32));
            penalties.note(Peer::Host((address, 1).into()), 5, now + Duration::from_nanos(index as u64)).unwrap();
        }
        assert_eq!(penalties.lock().len(), PENALTIES_MAX);
    }
}
