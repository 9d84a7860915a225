//! The kernel's congestion control: the one that was asked for, or one by what a path turns out to be like.

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use socket2::{Domain, Protocol, Socket, Type};

use super::Handle;
use super::tcp_info::{Diag, TcpInfo};
use crate::limits::{
    LOSS_LOOK_EVERY, LOSS_LOOKS_BLIND_MAX, LOSS_LOOKS_MIN, LOSS_OVERFLOW_TEN_THOUSANDTHS_MIN, LOSS_QUEUE_QUARTERS,
    LOSS_SEGMENTS_KEPT, LOSS_SEGMENTS_MIN, LOSS_TEN_THOUSANDTHS_MIN, LOSS_TRIP_MIN,
};

/// The name that stands for a choice made while the job runs.
pub const AUTO: &str = "auto";

/// What does well on a path that loses segments which nobody had too many of.
const BBR: &str = "bbr";

/// What does well with many connections on a path that does not: several of bbr's think that each of them finds more
/// room, overflow the queue, and send a tenth again. What they have found by then is a good start.
const CUBIC: &str = "cubic";

/// Which congestion control the streams over a path have.
#[derive(Debug)]
pub struct Congestion {
    /// As the user named it.
    name: String,
    /// Which path that is, for people, where there may be others.
    path: String,
    auto: Option<Auto>,
}

/// What a choice depends on.
#[derive(Debug)]
struct Auto {
    system: System,
    state: Mutex<State>,
}

/// What streams have before anything is chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum System {
    Bbr,
    /// And this user may have nothing else that would do.
    OnlyBbr,
    Other,
}

#[derive(Debug)]
struct State {
    /// Is nothing to be found out any more: the last choice is made, the path is a short one, or the kernel says nothing?
    is_over: bool,
    /// What was changed to; until then it is what the system uses.
    changed: Option<&'static str>,
    /// Was that not told yet?
    is_news: bool,
    /// Streams that are open, and perhaps some that were, with what was known of them at the last look.
    streams: Vec<(Weak<Socket>, TcpInfo)>,
    looked: Instant,
    /// At how many looks in a row nothing was known of any stream.
    blind: u32,
    /// The shortest round trip of all, once there was one.
    trip: Option<Duration>,
    losses: Losses,
}

/// What was lost on a path, with a queue and without. What is lost with one is how the usual congestion controls notice
/// that they send too much; what is lost without tells nothing of that (C. P. Fu, S. C. Liew, "TCP Veno: TCP enhancement
/// for transmission over wireless access networks", 2003).
#[derive(Debug, Default)]
struct Losses {
    queued: Tally,
    unqueued: Tally,
}

/// Segments of streams.
#[derive(Debug, Default)]
struct Tally {
    sent: u64,
    sent_again: u64,
    /// Looks at which some were sent again: what one burst cost is seen at one or two.
    looks: u32,
}

impl Losses {
    /// Adds what happened to streams from one look to the next, on a path whose round trip is so long without a queue.
    fn add(&mut self, trip: Duration, streams: impl Iterator<Item = (TcpInfo, TcpInfo)>) {
        let before = (self.queued.sent_again, self.unqueued.sent_again);
        let has_queue = |info: &TcpInfo| info.trip * 4 > trip * LOSS_QUEUE_QUARTERS;
        for (then, now) in streams {
            let tally = if has_queue(&then) || has_queue(&now) { &mut self.queued } else { &mut self.unqueued };
            tally.sent += u64::from(now.sent.wrapping_sub(then.sent));
            tally.sent_again += u64::from(now.sent_again.wrapping_sub(then.sent_again));
            if tally.sent > LOSS_SEGMENTS_KEPT {
                (tally.sent, tally.sent_again) = (tally.sent / 2, tally.sent_again / 2);
            }
        }
        self.queued.looks += u32::from(self.queued.sent_again > before.0);
        self.unqueued.looks += u32::from(self.unqueued.sent_again > before.1);
    }
}

impl Tally {
    /// Are so many of ten thousand sent again, and not by chance?
    fn is_at_least(&self, ten_thousandths: u64) -> bool {
        self.looks >= LOSS_LOOKS_MIN
            && self.sent_again >= LOSS_SEGMENTS_MIN
            && self.sent_again.saturating_mul(10_000) >= self.sent.saturating_mul(ten_thousandths)
    }

    fn percent(&self) -> f64 {
        self.sent_again as f64 * 100.0 / self.sent.max(1) as f64
    }
}

impl Congestion {
    /// The one of this name, or [`AUTO`].
    #[must_use]
    pub fn named(name: &str) -> Self {
        Self { name: name.to_owned(), path: String::new(), auto: (name == AUTO).then(|| Auto::new(System::now())) }
    }

    /// The same for another path, which is called so.
    #[must_use]
    pub fn afresh(&self, path: &str) -> Self {
        let auto = self.auto.as_ref().map(|auto| Auto::new(auto.system));
        Self { name: self.name.clone(), path: format!("{path}: "), auto }
    }

    /// What the user called it.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Is it chosen while the job runs?
    #[must_use]
    pub(super) fn is_auto(&self) -> bool {
        self.auto.is_some()
    }

    /// Has a socket that is not connected yet use it.
    ///
    /// # Errors
    /// The system does not have what the user named, or this user may not use it.
    pub(super) fn prepare(&self, socket: &Socket) -> io::Result<()> {
        let Some(auto) = &self.auto else { return set(socket, &self.name) };
        // A stream that had bbr once is paced to its end, so those of long paths get it when they are noted.
        let at_first = (auto.system == System::Bbr).then_some(CUBIC);
        let _ = auto.lock().changed.or(at_first).map(|name| set(socket, name));
        Ok(())
    }

    /// A connection came about.
    pub fn note(&self, handle: &Handle) {
        if let Some(auto) = &self.auto {
            auto.note(handle.socket(), &mut auto.lock());
        }
    }

    /// What is used from now on, where that was found to do better, and was not said before. Costs next to nothing where
    /// somebody looked a moment ago.
    #[must_use]
    pub fn look(&self) -> Option<&'static str> {
        let auto = self.auto.as_ref()?;
        let mut state = auto.state.try_lock().ok()?;
        // What happened within two round trips may be one event.
        if !state.is_over && state.looked.elapsed() >= LOSS_LOOK_EVERY.max(state.trip.unwrap_or_default() * 2) {
            state.looked = Instant::now();
            if let Some(now) = state.see() {
                auto.decide(&mut state, &now, &self.path);
            }
        }
        if std::mem::take(&mut state.is_news) { state.changed } else { None }
    }
}

impl State {
    /// The open streams as they are now.
    fn see(&mut self) -> Option<Vec<Option<TcpInfo>>> {
        let failed = |error: &io::Error| tracing::debug!("nothing is known of a connection: {error}");
        // One that was kept would be kept by jobs that nobody works on any more.
        let diag = Diag::open().inspect_err(failed).ok();
        let see = |socket: Arc<Socket>| diag.as_ref()?.of(&socket).inspect_err(failed).ok();
        let now: Vec<_> = self.streams.iter().map(|(socket, _)| socket.upgrade().and_then(see)).collect();
        let is_blind = now.iter().all(Option::is_none) && self.streams.iter().any(|(socket, _)| socket.strong_count() > 0);
        self.blind = if is_blind { self.blind + 1 } else { 0 };
        self.is_over = self.blind >= LOSS_LOOKS_BLIND_MAX;
        (!is_blind).then_some(now)
    }

    /// Nothing is gained by pacing there, and a timer for each burst costs a sixth of the processors' time.
    fn leave_bbr_on_short_path(&mut self) {
        let _ = self.change(CUBIC);
        self.is_over = true;
    }

    /// Has all open streams use another one, and those to come.
    fn change(&mut self, name: &'static str) -> io::Result<()> {
        let open: Vec<_> = self.streams.iter().filter_map(|(socket, _)| socket.upgrade()).collect();
        // One that was shut down meanwhile says nothing about the others.
        let changed: Vec<_> = open.iter().map(|socket| set(socket, name)).collect();
        changed.into_iter().reduce(Result::or).unwrap_or(Ok(()))?;
        (self.changed, self.is_news, self.losses) = (Some(name), true, Losses::default());
        Ok(())
    }
}

impl Auto {
    fn new(system: System) -> Self {
        let is_over = system == System::OnlyBbr;
        let (streams, losses, looked) = (Vec::new(), Losses::default(), Instant::now());
        let state = State { is_over, changed: None, is_news: false, streams, looked, blind: 0, trip: None, losses };
        Self { system, state: Mutex::new(state) }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn note(&self, socket: &Arc<Socket>, state: &mut State) {
        if let Some(changed) = state.changed {
            let _ = set(socket, changed);
        }
        if state.is_over {
            return;
        }
        state.streams.retain(|(socket, _)| socket.strong_count() > 0);
        state.streams.push((Arc::downgrade(socket), TcpInfo::default()));
        if self.system == System::Bbr && state.changed.is_none() {
            state.trip = state.trip.or_else(|| Diag::open().and_then(|diag| diag.of(socket)).ok().map(|info| info.trip_min));
            if state.trip.is_some_and(|trip| trip < LOSS_TRIP_MIN) {
                state.leave_bbr_on_short_path();
            } else {
                let _ = set(socket, BBR);
            }
        }
    }

    /// Chooses by what became of the streams until now, which are as `now` says.
    fn decide(&self, state: &mut State, now: &[Option<TcpInfo>], path: &str) {
        // The kernel forgets it after some minutes, and a late stream has never seen the path without a queue.
        let Some(trip) = now.iter().flatten().map(|now| now.trip_min).chain(state.trip).min() else { return };
        state.trip = Some(trip);
        let State { streams, losses, is_over, changed, .. } = &mut *state;
        let known = streams.iter().zip(now).filter_map(|((_, then), now)| now.map(|now| (*then, now)));
        losses.add(trip, known);
        for ((_, then), now) in streams.iter_mut().zip(now) {
            *then = now.unwrap_or(*then);
        }
        let has_bbr = self.system == System::Bbr && changed.is_none();
        let is_short = trip < LOSS_TRIP_MIN;
        let is_lossy = !is_short && losses.unqueued.is_at_least(LOSS_TEN_THOUSANDTHS_MIN);
        *is_over |= is_short || is_lossy;
        let (why, better) = match has_bbr {
            // The first stream was slow to come about.
            true if is_short => return state.leave_bbr_on_short_path(),
            true if !is_lossy && losses.queued.is_at_least(LOSS_OVERFLOW_TEN_THOUSANDTHS_MIN) => {
                (format!("more than the path carries ({:.2} %", losses.queued.percent()), CUBIC)
            }
            false if is_lossy => (format!("lossy path ({:.2} %", losses.unqueued.percent()), BBR),
            _ => return,
        };
        let why = format!("{path}{why} sent again, {} ms)", trip.as_millis());
        match state.change(better) {
            Ok(()) => tracing::info!("{why}: using {better}"),
            Err(error) => {
                state.is_over = true;
                tracing::info!("{why}: staying with {}, for {error}", state.changed.map_or_else(system_default, str::to_owned))
            }
        }
    }
}

impl System {
    fn now() -> Self {
        match system_default() == BBR {
            true if is_to_be_had(CUBIC) => Self::Bbr,
            true => Self::OnlyBbr,
            false => Self::Other,
        }
    }
}

/// May this user have it?
fn is_to_be_had(name: &str) -> bool {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::TCP));
    socket.and_then(|socket| set(&socket, name)).is_ok()
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
    use crate::net::dial::Dialer;
    use crate::net::{Listener, Stream};
    use crate::stop::Stop;

    const LONG: Duration = Duration::from_millis(50);

    /// A stream on which so many segments went out and were sent again, and whose round trip is a long one and so much
    /// more.
    fn stream(sent: u32, sent_again: u32, queue: Duration) -> TcpInfo {
        TcpInfo { sent, sent_again, trip: LONG + queue, trip_min: LONG }
    }

    const NO_QUEUE: Duration = Duration::from_millis(12);
    const QUEUE: Duration = Duration::from_millis(13);

    #[test]
    fn what_is_lost_counts_where_it_is_more_than_a_handful_again_and_again() {
        let is_lossy = |sent, sent_again, looks| Tally { sent, sent_again, looks }.is_at_least(3);
        assert!(is_lossy(10_000, 12, 3));
        assert!(!is_lossy(100, 5, 3), "a handful");
        assert!(!is_lossy(10_000, 12, 2), "one burst");
        assert!(!is_lossy(1_000_000, 100, 100), "one in ten thousand");
        assert!(is_lossy(1_000_000, 300, 3));
        assert!(!is_lossy(0, 0, 0));
    }

    #[test]
    fn what_is_lost_with_a_queue_is_told_from_what_is_lost_without() {
        let mut losses = Losses::default();
        let mut add = |then, now| {
            losses.add(LONG, [(then, now)].into_iter());
            [&losses.unqueued, &losses.queued].map(|tally| (tally.sent, tally.sent_again, tally.looks))
        };
        let (none, some, more) = (stream(0, 0, NO_QUEUE), stream(1000, 10, NO_QUEUE), stream(3000, 15, QUEUE));
        assert_eq!(add(TcpInfo::default(), none), [(0, 0, 0), (0, 0, 0)]);
        assert_eq!(add(none, some), [(1000, 10, 1), (0, 0, 0)]);
        assert_eq!(add(some, more), [(1000, 10, 1), (2000, 5, 1)], "there is a queue now");
        assert_eq!(add(more, stream(4000, 20, NO_QUEUE)), [(1000, 10, 1), (3000, 10, 2)], "there was");
        assert_eq!(add(some, stream(2000, 10, NO_QUEUE)), [(2000, 10, 1), (3000, 10, 2)], "nothing was lost");
        let last = add(stream(u32::MAX, u32::MAX, NO_QUEUE), stream(99, 0, NO_QUEUE));
        assert_eq!(last, [(2100, 11, 2), (3000, 10, 2)], "counters that began anew");
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

    /// One for such a system, with a dialer that uses it.
    fn auto(listener: &Listener, system: System) -> (Arc<Congestion>, Dialer) {
        let congestion = Arc::new(Congestion { auto: Some(Auto::new(system)), ..Congestion::named(AUTO) });
        let dialer = dialer_to(listener, &congestion);
        (congestion, dialer)
    }

    /// Where the system has bbr, over a path whose first handshake was a long one, with one stream open.
    fn over_long_path() -> Option<(Arc<Congestion>, Stream)> {
        if !has(BBR) || !has(CUBIC) {
            return None;
        }
        let listener = listener();
        let (congestion, dialer) = auto(&listener, System::Bbr);
        congestion.auto.as_ref().unwrap().lock().trip = Some(LONG);
        let open = dialer.dial(&Stop::new().unwrap()).unwrap();
        assert_eq!(used(open.handle().socket()), BBR);
        Some((congestion, open))
    }

    /// What is changed to after a look at which all streams are as this says.
    fn after(congestion: &Congestion, now: Option<TcpInfo>) -> Option<&'static str> {
        let auto = congestion.auto.as_ref().unwrap();
        let mut state = auto.lock();
        let all = vec![now; state.streams.len()];
        auto.decide(&mut state, &all, "");
        if std::mem::take(&mut state.is_news) { state.changed } else { None }
    }

    #[test]
    fn streams_that_are_open_and_those_to_come_change_once_the_path_is_lossy() {
        if !has(BBR) || !has("reno") {
            return;
        }
        let (listener, stop) = (listener(), Stop::new().unwrap());
        let (congestion, dialer) = auto(&listener, System::Other);
        congestion.auto.as_ref().unwrap().lock().changed = Some("reno");
        let open: Vec<_> = (0..3).map(|_| dialer.dial(&stop).unwrap()).collect();
        drop(dialer.dial(&stop).unwrap());
        let used_by_all = |name| open.iter().all(|stream| used(stream.handle().socket()) == name);
        assert_eq!(after(&congestion, None), None, "nothing is known of them");
        for index in 1..10 {
            assert_eq!(after(&congestion, Some(stream(index * 10_000, index * 500, QUEUE))), None, "there is a queue");
        }
        for _ in 0..10 {
            assert_eq!(after(&congestion, Some(stream(90_000, 4500, NO_QUEUE))), None, "nothing more is lost");
        }
        assert!(used_by_all("reno"));
        assert_eq!(after(&congestion, Some(stream(91_000, 4505, NO_QUEUE))), None, "once");
        assert_eq!(after(&congestion, Some(stream(92_000, 4510, NO_QUEUE))), None, "twice");
        assert_eq!(after(&congestion, Some(stream(93_000, 4515, NO_QUEUE))), Some(BBR));
        assert!(used_by_all(BBR));
        assert_eq!(used(dialer.dial(&stop).unwrap().handle().socket()), BBR);
        congestion.auto.as_ref().unwrap().lock().looked -= LONG * 100;
        assert_eq!(congestion.look(), None, "it was said");
    }

    #[test]
    fn bbr_is_left_where_it_overflows_the_path_and_taken_again_where_that_is_lossy() {
        let Some((congestion, open)) = over_long_path() else { return };
        for index in 1..10 {
            assert_eq!(after(&congestion, Some(stream(index * 10_000, index * 99, QUEUE))), None, "less than 1 %");
        }
        let overflown = (10..20).find_map(|index| after(&congestion, Some(stream(index * 10_000, index * 500, QUEUE))));
        assert_eq!(overflown, Some(CUBIC));
        assert_eq!(used(open.handle().socket()), CUBIC);
        let at = |index: u32| Some(stream(200_000 + index * 1000, 10_000 + index * 10, NO_QUEUE));
        let lossy = (0..10).find_map(|index| after(&congestion, at(index)));
        assert_eq!((lossy, used(open.handle().socket()).as_str()), (Some(BBR), BBR));
        let again = (20..40).find_map(|index| after(&congestion, Some(stream(index * 90_000, index * 5000, QUEUE))));
        assert_eq!(again, None, "nothing changes it back");
    }

    #[test]
    fn bbr_that_finds_the_path_lossy_stays() {
        let Some((congestion, _open)) = over_long_path() else { return };
        let lossy = (0..10).find_map(|index| after(&congestion, Some(stream(index * 1000, index * 10, NO_QUEUE))));
        assert_eq!((lossy, congestion.auto.as_ref().unwrap().lock().is_over), (None, true));
    }

    #[test]
    fn bbr_is_left_on_a_short_path() {
        if !has(CUBIC) {
            return;
        }
        let (listener, stop) = (listener(), Stop::new().unwrap());
        let (congestion, dialer) = auto(&listener, System::Bbr);
        let open = [dialer.dial(&stop).unwrap(), dialer.dial(&stop).unwrap()];
        assert!(open.iter().all(|stream| used(stream.handle().socket()) == CUBIC));
        assert_eq!((congestion.look(), congestion.look()), (Some(CUBIC), None), "it is said once");
    }

    #[test]
    fn bbr_is_left_on_a_short_path_whose_first_stream_was_slow_to_come_about() {
        let Some((congestion, open)) = over_long_path() else { return };
        let short = TcpInfo { trip_min: LOSS_TRIP_MIN / 2, ..stream(10, 0, NO_QUEUE) };
        assert_eq!(after(&congestion, Some(short)), Some(CUBIC));
        assert_eq!(used(open.handle().socket()), CUBIC);
    }

    #[test]
    fn nothing_is_asked_any_more_where_nothing_is_ever_known() {
        let (listener, stop) = (listener(), Stop::new().unwrap());
        let (congestion, dialer) = auto(&listener, System::Other);
        let mut state = congestion.auto.as_ref().unwrap().lock();
        (0..10).for_each(|_| assert!(state.see().is_some(), "there is nobody to ask for"));
        drop(state);
        let open = dialer.dial(&stop).unwrap();
        let mut state = congestion.auto.as_ref().unwrap().lock();
        // The kernel does not know it by its two ends any more.
        open.handle().socket().shutdown(std::net::Shutdown::Both).unwrap();
        drop(listener);
        let over = (0..10).map(|_| (state.see().is_none(), state.is_over)).take_while(|(_, is_over)| !is_over);
        assert_eq!(over.collect::<Vec<_>>(), [(true, false), (true, false)]);
    }

    #[test]
    fn what_was_lost_long_ago_is_forgotten() {
        let mut losses = Losses::default();
        let len = u32::try_from(LOSS_SEGMENTS_KEPT).unwrap();
        for index in 0..100 {
            losses.add(LONG, [(stream(0, 0, NO_QUEUE), stream(len, 0, NO_QUEUE))].into_iter());
            assert!(losses.unqueued.sent <= 2 * LOSS_SEGMENTS_KEPT, "{index}");
        }
        for _ in 0..4 {
            losses.add(LONG, [(stream(0, 0, NO_QUEUE), stream(len / 4, len / 4000, NO_QUEUE))].into_iter());
        }
        assert!(losses.unqueued.is_at_least(LOSS_TEN_THOUSANDTHS_MIN));
    }

    #[test]
    fn open_streams_are_looked_at_now_and_then() {
        let (listener, stop) = (listener(), Stop::new().unwrap());
        let (congestion, dialer) = auto(&listener, System::Other);
        let auto = congestion.auto.as_ref().unwrap();
        let mut stream = dialer.dial(&stop).unwrap();
        io::Write::write_all(&mut stream, b"x").unwrap();
        assert_eq!((congestion.look(), auto.lock().losses.unqueued.sent), (None, 0), "too soon");
        auto.lock().looked -= LONG * 100;
        assert_eq!(congestion.look(), None, "it is a short path");
        assert_eq!(auto.lock().streams[0].1.sent, 1);
        assert!(auto.lock().trip.unwrap() < LONG);
    }

    #[test]
    fn what_listens_hands_its_congestion_control_on() {
        if !has("reno") {
            return;
        }
        let listener = listener();
        listener.set_congestion(&Congestion::named("reno")).unwrap();
        let congestion = Arc::new(Congestion::named(&system_default()));
        let _dialled = dialer_to(&listener, &congestion).dial(&Stop::new().unwrap()).unwrap();
        let (socket, _) = listener.accept(&Stop::new().unwrap()).unwrap().unwrap();
        assert_eq!(used(&socket), "reno");
        listener.set_congestion(&Congestion { auto: Some(Auto::new(System::Bbr)), ..Congestion::named(AUTO) }).unwrap();
        let _dialled = dialer_to(&listener, &congestion).dial(&Stop::new().unwrap()).unwrap();
        let (socket, _) = listener.accept(&Stop::new().unwrap()).unwrap().unwrap();
        assert!(!has(CUBIC) || used(&socket) == CUBIC);
        let error = listener.set_congestion(&Congestion::named("nonsense")).unwrap_err();
        assert!(error.to_string().contains("\"nonsense\"") && error.to_string().contains("reno"), "{error}");
    }
}
