//! One thread, one connection: take a chunk, send it, see it confirmed.

use std::fs::File;
use std::io;
use std::sync::Arc;
use std::time::Instant;

use super::connection::{Connection, Sent, is_refusal};
use super::fetch::{Fetch, Site};
use super::flight::Holder;
use super::live::Live;
use super::outcome::{GaveUp, Outcome, PULL, PUSH, Taken, Wait};
use super::plan::{Chunk, Sending};
use super::ready::Ready;
use super::source::Source;
use crate::limits::{BACKOFF_MAX, BACKOFF_MIN, ROUTE_BREAKS_MAX};
use crate::net;
use crate::net::congestion::Congestion;
use crate::net::dial::{DialError, Dialer, backoff};
use crate::progress::{MayTry, Progress, Route};
use crate::protocol::Session;
use crate::stop::Stop;

/// What a worker works with; all of it is shared with the others.
#[derive(Clone, Copy)]
pub(super) struct Worker<'a> {
    /// Which way content goes.
    pub(super) way: Way<'a>,
    /// What connections say at their start, and how they carry ranges.
    pub(super) session: &'a Session,
    /// Are BLAKE3 values wanted?
    pub(super) wants_subtrees: bool,
    /// The receiver, by its own route where there are several.
    pub(super) dialer: &'a Dialer,
    /// How that route fares, where there are several.
    pub(super) route: Option<&'a Route>,
    /// Connections that were dialled ahead.
    pub(super) ready: Option<&'a Ready<'a>>,
    /// Who takes chunks.
    pub(super) holder: Holder,
    /// Where chunks come from.
    pub(super) take: &'a (dyn Fn(Holder, Wait) -> Taken + Sync),
    /// Where it is said what became of them.
    pub(super) report: &'a (dyn Fn(Vec<(Chunk, Outcome)>) + Sync),
    /// Where connections are counted.
    pub(super) progress: &'a Progress,
    /// Where streams are known while they are open.
    pub(super) live: &'a Live,
    /// Asked to end, or is nothing that is still under way waited for?
    pub(super) stop: &'a Stop,
}

/// Which way content goes.
#[derive(Debug, Clone, Copy)]
pub(super) enum Way<'a> {
    /// Out of these files.
    Out(&'a Source),
    /// In, to where it lands.
    In(Site<'a>),
}

/// A connection that content goes over.
enum Line<'a> {
    Out(Box<Connection<'a>>),
    In(Box<Fetch<'a>>),
}

/// Takes what became of chunks.
type Report<'a> = &'a dyn Fn(Vec<(Chunk, Outcome)>);

impl Line<'_> {
    fn unanswered(&self) -> usize {
        match self {
            Self::Out(connection) => connection.unanswered(),
            Self::In(fetch) => fetch.unanswered(),
        }
    }

    fn wait(&mut self, report: Report<'_>) -> io::Result<usize> {
        match self {
            Self::Out(connection) => connection.wait(report),
            Self::In(fetch) => fetch.wait(report),
        }
    }

    fn reset(self) -> Vec<Chunk> {
        match self {
            Self::Out(connection) => connection.reset(),
            Self::In(fetch) => fetch.reset(),
        }
    }

    fn give_up(self, report: Report<'_>) -> (Vec<Chunk>, Option<io::Error>) {
        match self {
            Self::Out(connection) => connection.give_up(report),
            Self::In(fetch) => (fetch.give_up(), None),
        }
    }
}

/// What a worker holds: it has none of it at first, and loses it when something breaks.
#[derive(Default)]
struct Hands<'a> {
    line: Option<Line<'a>>,
    file: Option<(Arc<Sending>, File)>,
    /// Connections that broke since the last confirmation.
    broken_in_a_row: u32,
    /// Since when its route leads nowhere.
    lost_since: Option<Instant>,
}

impl<'a> Worker<'a> {
    /// Works until there is nothing more to do. All that was taken is reported.
    ///
    /// # Errors
    /// The receiver could not be reached for as long as the dialer tries.
    pub(super) fn run(&self) -> Result<(), GaveUp> {
        let mut hands = Hands::default();
        loop {
            match &mut hands.line {
                Some(line) if line.unanswered() > 0 => match (self.take)(self.holder, Wait::No) {
                    Taken::Chunk(chunk) => self.send(&mut hands, chunk)?,
                    Taken::Nothing | Taken::Finished => {
                        let received = line.wait(self.report);
                        self.check(&mut hands, received)?;
                    }
                },
                line => {
                    if line.is_none() && hands.broken_in_a_row > 0 {
                        // Others may do meanwhile what it would hold.
                        self.stop.wait(backoff(hands.broken_in_a_row).min(BACKOFF_MAX / 4));
                    }
                    if line.is_none() && self.route.is_some() && !self.find_way(&mut hands)? {
                        return Ok(());
                    }
                    match self.take_patiently() {
                        Taken::Chunk(chunk) => self.send(&mut hands, chunk)?,
                        Taken::Nothing | Taken::Finished => return Ok(()),
                    }
                }
            }
        }
    }

    /// Sends a chunk and looks after the answers to those before it.
    fn send(&self, hands: &mut Hands<'a>, chunk: Chunk) -> Result<(), GaveUp> {
        let alone = chunk.is_suspect();
        if alone && !self.settle_all(hands)? {
            (self.report)(vec![(chunk, Outcome::Lost)]);
            return Ok(());
        }
        match self.way {
            Way::Out(source) => self.send_from(source, hands, chunk, alone),
            Way::In(site) => self.ask_for(site, hands, chunk, alone),
        }
    }

    /// Asks for a chunk, or finds out here what of its file is missing.
    fn ask_for(&self, site: Site<'a>, hands: &mut Hands<'a>, chunk: Chunk, alone: bool) -> Result<(), GaveUp> {
        if chunk.is_question() {
            let going = || if self.stop.is_asked() { Err(io::Error::other("stopped")) } else { Ok(()) };
            let outcome = site.ask(&chunk, going);
            (self.report)(vec![(chunk, outcome)]);
            return Ok(());
        }
        let Some(chunk) = self.need_line(hands, chunk)? else { return Ok(()) };
        let Some(Line::In(fetch)) = &mut hands.line else { return Ok(()) };
        fetch.ask(chunk);
        let result = if alone || !fetch.has_room() { fetch.wait(self.report) } else { Ok(0) };
        self.check(hands, result).map(drop)
    }

    /// Sends a chunk of the source.
    fn send_from(&self, source: &Source, hands: &mut Hands<'a>, chunk: Chunk, alone: bool) -> Result<(), GaveUp> {
        if hands.file.as_ref().is_none_or(|(sending, _)| !Arc::ptr_eq(sending, &chunk.file)) {
            let _reading = self.progress.waits.reading.start();
            match source.open(&chunk.file.path) {
                Ok(file) => hands.file = Some((Arc::clone(&chunk.file), file)),
                Err(error) => {
                    let reason = describe_open_error(&error);
                    (self.report)(vec![(chunk, Outcome::SourceFailed(reason))]);
                    return Ok(());
                }
            }
        }
        let Some(chunk) = self.need_line(hands, chunk)? else { return Ok(()) };
        let (Some(Line::Out(connection)), Some((_, file))) = (&mut hands.line, &hands.file) else { return Ok(()) };
        let result = match connection.send(chunk, file) {
            Sent::Away if alone || !connection.has_room() => connection.wait(self.report),
            Sent::Away if connection.may_have_answers() => connection.receive(Wait::No, self.report),
            Sent::Away => Ok(0),
            Sent::Broken(error) => Err(error),
            Sent::Kept(chunk, reason) => {
                hands.file = None;
                (self.report)(vec![(chunk, Outcome::SourceFailed(reason))]);
                Ok(0)
            }
            Sent::Spoiled(chunk, reason) => {
                hands.file = None;
                (self.report)(vec![(chunk, Outcome::SourceFailed(reason))]);
                if let Some(Line::Out(connection)) = hands.line.take() {
                    self.put_back(connection.abandon(self.report), None);
                }
                return Ok(());
            }
        };
        self.check(hands, result).map(drop)
    }

    fn take_patiently(&self) -> Taken {
        match (self.take)(self.holder, Wait::No) {
            Taken::Nothing => {
                let _waiting = self.progress.waits.work.start();
                (self.take)(self.holder, Wait::Yes)
            }
            taken => taken,
        }
    }

    /// Connects with nothing in hand: where there are other routes, they may do meanwhile what would wait for this
    /// one. False when nobody needs it any more.
    ///
    /// # Errors
    /// The route leads nowhere.
    fn find_way(&self, hands: &mut Hands<'a>) -> Result<bool, GaveUp> {
        let mut failures = 0;
        let relayed = self.route.filter(|_| self.dialer.is_relayed());
        while hands.line.is_none() {
            match relayed.map_or(MayTry::Yes, Route::may_try) {
                MayTry::Yes => {}
                MayTry::Later if self.stop.wait(BACKOFF_MIN) => return Ok(false),
                MayTry::Later => continue,
                MayTry::Never => return Err(GaveUp::Unreachable(relayed.and_then(Route::trouble).unwrap_or_default())),
            }
            let connected = self.connect(false);
            if let Some(route) = relayed {
                route.tried(connected.is_ok(), connected.as_ref().is_err_and(DialError::is_refusal));
            }
            let error = match connected {
                _ if self.stop.is_asked() => return Ok(false),
                Ok(Some(line)) => {
                    (hands.line, hands.lost_since) = (Some(line), None);
                    break;
                }
                Ok(None) => {
                    hands.broken_in_a_row += 1;
                    self.give_up_what_breaks(hands)?;
                    let since = *hands.lost_since.get_or_insert_with(Instant::now);
                    if since.elapsed() >= self.dialer.retry_for() {
                        return Err(GaveUp::Unreachable("connections break as soon as they are there".to_owned()));
                    }
                    None
                }
                Err(error) => Some(error),
            };
            if let Some(error) = error {
                let is_final = error.is_refusal();
                let why = format!("{:#}", anyhow::Error::from(error));
                self.note_trouble(&why);
                let since = *hands.lost_since.get_or_insert_with(Instant::now);
                if is_final || since.elapsed() >= self.dialer.retry_for() {
                    return Err(GaveUp::Unreachable(why));
                }
            }
            if self.stop.wait(backoff(failures)) {
                return Ok(false);
            }
            failures += 1;
        }
        Ok(true)
    }

    /// A relay that spoils what passes through it is not tried for ever.
    fn give_up_what_breaks(&self, hands: &Hands<'a>) -> Result<(), GaveUp> {
        if self.dialer.is_relayed() && hands.broken_in_a_row >= ROUTE_BREAKS_MAX {
            let why = format!("connections by {} break again and again", self.dialer.route_name());
            self.note_trouble(&why);
            return Err(GaveUp::Unreachable(why));
        }
        Ok(())
    }

    /// Says what is wrong with its route, once.
    fn note_trouble(&self, why: &str) {
        if let Some(route) = self.route
            && route.note_trouble(why)
        {
            let others = if self.progress.routes().len() > 1 { "; others carry on" } else { "" };
            tracing::warn!("route {}: {why}{others}", route.name());
        }
    }

    /// Sees to it that there is a connection for a chunk, which is given back; none where it is reported,
    /// because there is no connection.
    fn need_line(&self, hands: &mut Hands<'a>, chunk: Chunk) -> Result<Option<Chunk>, GaveUp> {
        if hands.line.is_some() {
            return Ok(Some(chunk));
        }
        match self.connect(true) {
            Ok(Some(line)) => {
                hands.line = Some(line);
                return Ok(Some(chunk));
            }
            Ok(None) => hands.broken_in_a_row += 1,
            Err(error) if !self.stop.is_asked() => {
                (self.report)(vec![(chunk, Outcome::Lost)]);
                return Err(GaveUp::Unreachable(format!("{:#}", anyhow::Error::from(error))));
            }
            Err(_) => {}
        }
        (self.report)(vec![(chunk, Outcome::Lost)]);
        Ok(None)
    }

    /// A new connection; none if it broke as soon as it was there.
    fn connect(&self, is_patient: bool) -> Result<Option<Line<'a>>, DialError> {
        let stream = match self.ready.and_then(Ready::take) {
            Some(stream) => stream,
            None if is_patient => self.dialer.dial_patiently(self.stop)?,
            None => self.dialer.dial(self.stop)?,
        };
        self.progress.connections.add(1);
        if let Some(route) = self.route {
            route.connections.add(1);
        }
        let stream = self.live.register(stream);
        let (session, progress) = (self.session, self.progress);
        let started = match self.way {
            Way::Out(_) => Connection::start(stream, session, self.wants_subtrees, progress)
                .map(|connection| Line::Out(Box::new(connection))),
            Way::In(site) => Fetch::start(stream, session, site, self.wants_subtrees, (progress, self.stop))
                .map(|fetch| Line::In(Box::new(fetch))),
        };
        Ok(started.inspect_err(|error| tracing::debug!("a connection to {} broke: {error}", self.dialer)).ok())
    }

    /// Sees everything answered that was sent; false when the connection broke over it.
    fn settle_all(&self, hands: &mut Hands<'a>) -> Result<bool, GaveUp> {
        while let Some(line) = &mut hands.line
            && line.unanswered() > 0
        {
            let received = line.wait(self.report);
            if !self.check(hands, received)? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Takes the result of work on the connection, a number of answers; false when it broke.
    ///
    /// # Errors
    /// The receiver wants no more connections of this job.
    fn check(&self, hands: &mut Hands<'a>, result: io::Result<usize>) -> Result<bool, GaveUp> {
        if let Some(changed) = self.dialer.congestion().and_then(Congestion::look) {
            self.progress.note_congestion(changed);
        }
        match result {
            Ok(0) => Ok(true),
            Ok(_) => {
                hands.broken_in_a_row = 0;
                Ok(true)
            }
            Err(mut error) => {
                if let Some(line) = hands.line.take() {
                    if self.stop.is_asked() {
                        // It was shut down from here.
                        self.put_back(line.reset(), None);
                        return Ok(false);
                    }
                    tracing::debug!("a connection to {} broke: {error}", self.dialer);
                    self.progress.lost_connections.add(1);
                    let (unanswered, refusal) = line.give_up(self.report);
                    error = refusal.unwrap_or(error);
                    self.put_back(unanswered, Some(&error));
                }
                hands.broken_in_a_row += 1;
                self.give_up_what_breaks(hands)?;
                if is_refusal(&error) {
                    return Err(GaveUp::Refused(format!("{} refuses: {error}", self.dialer)));
                }
                Ok(false)
            }
        }
    }

    /// Reports what a connection that is gone did not confirm. The oldest is what the receiver was
    /// busy with: if it closed the connection, that was the answer.
    fn put_back(&self, unanswered: Vec<Chunk>, error: Option<&io::Error>) {
        let mut outcome = match error {
            None => Outcome::Lost,
            // It says nothing of the receiver, unless that said why.
            Some(error) if self.dialer.is_relayed() && error.kind() != io::ErrorKind::Other => Outcome::Lost,
            Some(error) if net::is_stall(error) => Outcome::Stalled,
            Some(error) if is_refusal(error) => Outcome::Lost,
            Some(error) => Outcome::Refused(self.describe_close(error)),
        };
        let with_outcome = |chunk| (chunk, std::mem::replace(&mut outcome, Outcome::Lost));
        (self.report)(unanswered.into_iter().map(with_outcome).collect());
    }

    fn describe_close(&self, error: &io::Error) -> String {
        let peer = match self.way {
            Way::Out(_) => PUSH.peer,
            Way::In(_) => PULL.peer,
        };
        match error.kind() {
            io::ErrorKind::UnexpectedEof => "the connection was closed without an answer".to_owned(),
            io::ErrorKind::Other => format!("the {peer} ended the connection: {error}"),
            _ => format!("the connection broke without an answer: {error}"),
        }
    }
}

fn describe_open_error(error: &io::Error) -> String {
    match rustix::io::Errno::from_io_error(error) {
        Some(rustix::io::Errno::NOENT) => "vanished before it was sent".to_owned(),
        Some(rustix::io::Errno::LOOP) => "became a symbolic link before it was sent".to_owned(),
        _ => format!("can't be read: {error}"),
    }
}
