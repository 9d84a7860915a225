//! The kernel's congestion control: the one that was asked for, or another once a path turns out to be lossy.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

use socket2::Socket;

use super::Handle;
use crate::limits::{LOSS_LOOK_EVERY, LOSS_SEGMENTS_MIN, LOSS_TEN_THOUSANDTHS_MIN, LOSS_TRIP_MIN};

/// The name that stands for a choice made while the job runs.
pub const AUTO: &str = "auto";

/// What does well on a path that loses segments which nobody had too many of.
const BBR: &str = "bbr";

/// Which congestion control the streams of a dialer have.
#[derive(Debug)]
pub struct Congestion {
    /// As the user named it.
    name: String,
    auto: Option<Auto>,
}

/// What a choice depends on.
#[derive(Debug)]
struct Auto {
    /// What streams have until then; the system's default where that is none.
    start: Option<&'static str>,
    began: Instant,
    /// Milliseconds since then at the last look.
    looked: AtomicU64,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Those that are open, and perhaps some that were.
    sockets: Vec<Weak<Socket>>,
    /// The shortest time that a connection took to come about: a round trip.
    trip: Option<Duration>,
    at_start: Option<Segments>,
    /// Is the choice made?
    choice: Option<Choice>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Choice {
    Bbr,
    AsAtStart,
}

/// Segments that this network namespace sent: those of a job and of all others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Segments {
    sent: u64,
    sent_again: u64,
}

impl Segments {
    fn now() -> Option<Self> {
        Self::parse(&std::fs::read_to_string("/proc/self/net/snmp").ok()?)
    }

    /// Out of a table of names and numbers, a line each.
    fn parse(table: &str) -> Option<Self> {
        let mut lines = table.lines().filter_map(|line| line.strip_prefix("Tcp: "));
        let (names, numbers) = (lines.next()?.split_whitespace(), lines.next()?.split_whitespace());
        let of = |wanted: &str| {
            let (_, number) = names.clone().zip(numbers.clone()).find(|(name, _)| *name == wanted)?;
            number.parse().ok()
        };
        Some(Self { sent: of("OutSegs")?, sent_again: of("RetransSegs")? })
    }

    /// Those since `earlier`.
    fn since(self, earlier: Self) -> Self {
        let sent_again = self.sent_again.saturating_sub(earlier.sent_again);
        Self { sent: self.sent.saturating_sub(earlier.sent), sent_again }
    }

    /// Are so many lost that a long path is used badly?
    fn are_lossy(self, trip: Duration) -> bool {
        trip >= LOSS_TRIP_MIN
            && self.sent_again >= LOSS_SEGMENTS_MIN
            && self.sent_again.saturating_mul(10_000) >= self.sent.saturating_mul(LOSS_TEN_THOUSANDTHS_MIN)
    }
}

impl Congestion {
    /// The one of this name, or [`AUTO`].
    #[must_use]
    pub fn named(name: &str) -> Self {
        Self { name: name.to_owned(), auto: (name == AUTO).then(|| Auto::new(None)) }
    }

    /// What the user called it.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Has a socket that is not connected yet use it.
    ///
    /// # Errors
    /// The system does not have it, or this user may not use it.
    pub(super) fn prepare(&self, socket: &Socket) -> io::Result<()> {
        let Some(auto) = &self.auto else {
            return set(socket, &self.name);
        };
        match (auto.lock().choice, auto.start) {
            (Some(Choice::Bbr), _) => set(socket, BBR),
            (_, Some(start)) => set(socket, start),
            _ => Ok(()),
        }
    }

    /// A connection came about, which took so long.
    pub(super) fn note(&self, handle: &Handle, took: Duration) {
        let Some(auto) = &self.auto else { return };
        let mut state = auto.lock();
        state.trip = Some(state.trip.map_or(took, |trip| trip.min(took)));
        state.sockets.retain(|socket| socket.strong_count() > 0);
        state.sockets.push(Arc::downgrade(handle.socket()));
        // It may have begun before another choice, and come about after it.
        if state.choice == Some(Choice::Bbr) {
            let _ = set(handle.socket(), BBR);
        }
    }

    /// Is the path lossy, and was it not known to be before? Then all streams are changed. Costs next to nothing
    /// where somebody looked a moment ago.
    #[must_use]
    pub fn look(&self) -> Option<&'static str> {
        let auto = self.auto.as_ref()?;
        let (now, looked) = (auto.began.elapsed().as_millis() as u64, auto.looked.load(Ordering::Relaxed));
        let is_due = now >= looked.saturating_add(LOSS_LOOK_EVERY.as_millis() as u64);
        let is_mine = is_due && auto.looked.compare_exchange(looked, now, Ordering::Relaxed, Ordering::Relaxed).is_ok();
        if !is_mine || auto.lock().choice.is_some() {
            return None;
        }
        auto.decide(Segments::now()?)
    }
}

impl Auto {
    fn new(start: Option<&'static str>) -> Self {
        let mut state = State { at_start: Segments::now(), ..State::default() };
        if start.is_none() && system_default() == BBR {
            tracing::debug!("the system uses {BBR} already");
            state.choice = Some(Choice::AsAtStart);
        }
        Self { start, began: Instant::now(), looked: AtomicU64::new(0), state: Mutex::new(state) }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Chooses by what was sent until now; says what is used from now on where that is something else.
    fn decide(&self, now: Segments) -> Option<&'static str> {
        let mut state = self.lock();
        let (since, trip) = (now.since(state.at_start?), state.trip?);
        if !since.are_lossy(trip) {
            return None;
        }
        let share = since.sent_again as f64 * 100.0 / since.sent.max(1) as f64;
        let path = format!("lossy path ({share:.2} % sent again, {} ms)", trip.as_millis());
        let open: Vec<_> = state.sockets.iter().filter_map(Weak::upgrade).collect();
        // One that was shut down meanwhile says nothing about the others.
        let changed: Vec<_> = open.iter().map(|socket| set(socket, BBR)).collect();
        match changed.into_iter().reduce(Result::or)? {
            Ok(()) => {
                tracing::info!("{path}: using {BBR}");
                state.choice = Some(Choice::Bbr);
                Some(BBR)
            }
            Err(error) => {
                tracing::info!("{path}: staying with {}, for {error}", self.start.map_or_else(system_default, str::to_owned));
                state.choice = Some(Choice::AsAtStart);
                None
            }
        }
    }
}

/// Has a socket use a congestion control.
///
/// # Errors
/// Says what there is instead.
pub(super) fn set(socket: &Socket, name: &str) -> io::Result<()> {
    socket.set_tcp_congestion(name.as_bytes()).map_err(|error| not_there(name, &error))
}

/// What the system uses where nobody asks for anything else; empty where that can't be told.
#[must_use]
pub fn system_default() -> String {
    setting("tcp_congestion_control")
}

fn setting(name: &str) -> String {
    let words = std::fs::read_to_string(format!("/proc/sys/net/ipv4/{name}")).unwrap_or_default();
    words.split_whitespace().collect::<Vec<_>>().join(", ")
}

/// Says what there is instead.
fn not_there(name: &str, error: &io::Error) -> io::Error {
    let (act, list) = match error.kind() {
        io::ErrorKind::PermissionDenied => ("this user may not use", "tcp_allowed_congestion_control"),
        _ => ("this machine does not have", "tcp_available_congestion_control"),
    };
    io::Error::new(error.kind(), format!("{act} congestion control {name:?} ({error}); there is {}", setting(list)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::{RETRY_FOR_DEFAULT, STALL_DEFAULT};
    use crate::net::Listener;
    use crate::net::dial::Dialer;
    use crate::stop::Stop;

    const LONG: Duration = Duration::from_millis(50);

    #[test]
    fn a_path_is_lossy_that_is_long_and_loses_more_than_a_handful() {
        let lossy = |sent, sent_again, trip| Segments { sent, sent_again }.are_lossy(trip);
        assert!(lossy(10_000, 12, LONG));
        assert!(!lossy(10_000, 12, Duration::from_millis(1)), "a short one");
        assert!(!lossy(100, 5, LONG), "a handful");
        assert!(!lossy(1_000_000, 100, LONG), "one in ten thousand");
        assert!(lossy(1_000_000, 300, LONG));
        assert!(!lossy(0, 0, LONG));
        let (earlier, now) = (Segments { sent: 100, sent_again: 90 }, Segments { sent: 1_000_100, sent_again: 130 });
        assert_eq!(now.since(earlier), Segments { sent: 1_000_000, sent_again: 40 });
        assert_eq!(earlier.since(now), Segments { sent: 0, sent_again: 0 }, "counters that began anew");
    }

    #[test]
    fn counters_are_found_by_their_names() {
        let table =
            "Ip: Forwarding OutSegs\nIp: 1 2\nTcp: RtoMin MaxConn OutSegs RetransSegs InErrs\nTcp: 200 -1 77 5 0\nUdp: A\n";
        assert_eq!(Segments::parse(table), Some(Segments { sent: 77, sent_again: 5 }));
        for wrong in ["", "Tcp: OutSegs\n", "Tcp: OutSegs RetransSegs\nTcp: 1\n", "Tcp: OutSegs RetransSegs\nTcp: 1 x\n"] {
            assert_eq!(Segments::parse(wrong), None, "{wrong:?}");
        }
        assert!(Segments::now().is_some_and(|now| now.sent >= now.sent_again));
    }

    fn used(socket: &Socket) -> String {
        let name = socket.tcp_congestion().unwrap();
        String::from_utf8_lossy(&name).trim_end_matches('\0').to_owned()
    }

    /// Is it to be had here?
    fn has(name: &str) -> bool {
        let has = setting("tcp_available_congestion_control").split(", ").any(|there| there == name);
        if !has {
            println!("SKIPPED: this kernel has no {name}");
        }
        has
    }

    fn dialer_to(listener: &Listener, congestion: &Arc<Congestion>) -> Dialer {
        let dialer = Dialer::to_addresses(vec![listener.address().unwrap()], STALL_DEFAULT, RETRY_FOR_DEFAULT);
        dialer.with_congestion(Some(Arc::clone(congestion)))
    }

    fn listener() -> Listener {
        Listener::bind(Some([127, 0, 0, 1].into()), 0, None).unwrap()
    }

    #[test]
    fn streams_that_are_open_and_those_to_come_change_once_the_path_is_lossy() {
        if !has(BBR) || !has("reno") {
            return;
        }
        let (listener, stop) = (listener(), Stop::new().unwrap());
        let congestion = Arc::new(Congestion { name: AUTO.to_owned(), auto: Some(Auto::new(Some("reno"))) });
        let dialer = dialer_to(&listener, &congestion);
        let open: Vec<_> = (0..3).map(|_| dialer.dial(&stop).unwrap()).collect();
        drop(dialer.dial(&stop).unwrap());
        let auto = congestion.auto.as_ref().unwrap();
        let start = auto.lock().at_start.unwrap();
        let now = Segments { sent: start.sent + 10_000, sent_again: start.sent_again + 50 };
        assert_eq!(auto.decide(now), None, "it is a short path");
        assert!(open.iter().all(|stream| used(stream.handle().socket()) == "reno"));
        auto.lock().trip = Some(LONG);
        assert_eq!(auto.decide(start), None, "nothing was lost");
        assert_eq!(auto.decide(now), Some(BBR));
        assert!(open.iter().all(|stream| used(stream.handle().socket()) == BBR));
        assert_eq!(used(dialer.dial(&stop).unwrap().handle().socket()), BBR);
        assert_eq!(congestion.look(), None, "once");
    }

    #[test]
    fn what_listens_hands_its_congestion_control_on() {
        if !has("reno") {
            return;
        }
        let listener = listener();
        listener.set_congestion("reno").unwrap();
        let congestion = Arc::new(Congestion::named(&system_default()));
        let _dialled = dialer_to(&listener, &congestion).dial(&Stop::new().unwrap()).unwrap();
        let (socket, _) = listener.accept(&Stop::new().unwrap()).unwrap().unwrap();
        assert_eq!(used(&socket), "reno");
        let error = listener.set_congestion("nonsense").unwrap_err();
        assert!(error.to_string().contains("\"nonsense\"") && error.to_string().contains("reno"), "{error}");
    }
}
