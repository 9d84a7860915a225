//! One accepted stream: read a request → dispatch → answer, until it ends.

mod browse;
pub(super) mod login;
mod relay;

use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::sync::Arc;
use std::time::Instant;

use super::acts::{self, Act};
use super::answering::Answering;
use super::audit::Audit;
use super::guard::Slot;
use super::handlers::{self, Ending};
use super::homes::{Home, Homes};
use super::metrics::Metrics;
use super::penalties::Penalties;
use super::reading::Source;
use super::rights_of;
use super::session::{Attached, Session, Sessions};
use super::{Config, Served, finish};
use crate::limits::{INBOX_LEN_MAX, STALE_AFTER};
use crate::net::pace::Pace;
use crate::net::{self, Peer, Stream};
use crate::path::{Escaped, RemotePath};
use crate::protocol;
use crate::protocol::hello::{self, Dialect};
use crate::protocol::{Answer, BUSY, Decoded, Features, Open, Purpose, Put, Reply, Request, Status, Token, v1, v2};
use crate::pump::Inbox;
use crate::stop::Stop;
use crate::store::{Folders, Made};

/// What all connections share.
#[derive(Clone, Copy)]
pub(super) struct Shared<'a> {
    pub(super) homes: &'a Homes,
    pub(super) config: &'a Config,
    pub(super) sessions: &'a Sessions,
    pub(super) metrics: &'a Metrics,
    pub(super) penalties: &'a Penalties,
    /// The same for accounts that people make themselves.
    pub(super) sign_ups: &'a Penalties,
    /// The rate of all connections together, if there is one.
    pub(super) pace: Option<&'a Arc<Pace>>,
    pub(super) stop: &'a Stop,
    /// Asked to end what is under way, too?
    pub(super) closing: &'a Stop,
}

/// What is said to new work when none is taken any more.
const STOPPING: &str = "busy: this receiver is stopping; try again later";

/// How far a connection has come.
enum State<'a> {
    /// It said nothing yet.
    New,
    /// It said which version it speaks.
    Greeted,
    /// It works on a job.
    Joined(Attached<'a>),
}

/// One connection while it is served.
struct Connection<'a> {
    shared: Shared<'a>,
    state: State<'a>,
    /// Until when it must have joined a job, once it has said anything.
    login_by: Option<Instant>,
    folders: Folders,
    /// What was read last.
    source: Option<Source>,
    slot: &'a Slot<'a>,
    peer: Peer,
    audit: Audit<'a>,
    /// When a frame was served last.
    served: Instant,
    /// What it speaks, once that is known.
    dialect: Option<Dialect>,
    /// What both ends can do.
    features: Features,
    inbox: Inbox,
    /// Reads from the peer; sends the answers that wait before it waits for more.
    stream: Answering,
}

/// How the wait for a frame ended.
enum Next {
    /// A frame's header is here.
    Frame,
    /// There will be none.
    End(Ending),
}

/// Serves a connection to its end. It was cut if the end came in the middle of a frame and from
/// our side.
pub(super) fn serve<'a>(stream: Stream, slot: &'a Slot<'a>, shared: Shared<'a>) -> Served {
    let peer = slot.peer();
    let mut connection = Connection {
        shared,
        state: State::New,
        // Who speaks v1 may have nothing to say for long.
        login_by: None,
        folders: Folders::default(),
        source: None,
        slot,
        peer,
        audit: Audit::new(shared.config.audits, peer, shared.metrics),
        served: Instant::now(),
        dialect: None,
        features: Features(0),
        inbox: Inbox::default(),
        stream: Answering::new(stream),
    };
    tracing::debug!("{peer}: connected");
    connection.audit.connected();
    // Who speaks v1 may have nothing to say for long.
    if !shared.config.serves_v1 {
        connection.begin_login();
    }
    let ending = loop {
        let ending = match connection.wait_for_frame() {
            // The peer would not hear the answer, and would ask again.
            Next::Frame if slot.is_cut() => Err(Ending::Closed),
            Next::Frame => connection.serve_frame(),
            Next::End(ending) => Err(ending),
        };
        if let Err(ending) = ending {
            break ending;
        }
    };
    // Whoever was woken hears why.
    let ending = connection.over().map_or(ending, Ending::refused);
    let (cut, mid_frame) = (slot.is_cut(), matches!(ending, Ending::Broken { .. }));
    match &ending {
        Ending::Closed => tracing::debug!("{peer}: disconnected"),
        Ending::Foreign => tracing::debug!("{peer}: closed, speaks nothing that is spoken here"),
        Ending::Broken { .. } if cut => {}
        Ending::Refused { .. } | Ending::Broken { .. } => tracing::warn!("{peer}: {ending}"),
    }
    if let Ending::Refused { why } = &ending {
        connection.audit.refused(why);
    }
    if let (Ending::Refused { why }, Some(Dialect::V2)) = (&ending, connection.dialect) {
        // The reason goes before the close, so that it arrives.
        let _ = connection.stream.reply(&Reply::Refused(why.clone()));
    }
    // Answers that were given are sent even to one who is refused.
    let _ = connection.stream.send_answers();
    let _ = connection.stream.stream.end_writing();
    if matches!(ending, Ending::Refused { .. } | Ending::Foreign) && !cut {
        slot.handle().close_in_order();
    }
    connection.audit.disconnected();
    // Woken between two frames, it may have been about to read the next.
    if mid_frame && (cut || shared.stop.is_asked()) { Served::Cut } else { Served::Whole }
}

impl<'a> Connection<'a> {
    /// The request at the start of what is here.
    fn decode(&self) -> Decoded<Request<'_>> {
        let bytes = self.inbox.bytes();
        match self.dialect {
            Some(Dialect::V1) => v1::decode(bytes),
            Some(Dialect::V2) => v2::request::decode(bytes),
            _ => Ok(None),
        }
    }

    /// Is a request at the start of what is here? It is decoded when it is served, and only then.
    fn is_frame_here(&self) -> Result<bool, protocol::Error> {
        let bytes = self.inbox.bytes();
        match self.dialect {
            Some(Dialect::V1) => Ok(v1::decode(bytes)?.is_some()),
            Some(Dialect::V2) => v2::request::is_here(bytes),
            _ => Ok(false),
        }
    }

    /// Waits until the header of a frame is here, and all of a list.
    fn wait_for_frame(&mut self) -> Next {
        let slot = self.slot;
        loop {
            if let Err(ending) = self.find_dialect() {
                return Next::End(ending);
            }
            match self.is_frame_here() {
                Ok(true) => return Next::Frame,
                Err(error) => return Next::End(Ending::refused(error)),
                Ok(false) => {}
            }
            let between_frames = self.inbox.bytes().is_empty();
            if between_frames {
                slot.set_idle(true);
                // Set before asked: either this sees the request to stop or its maker sees this.
                if self.shared.stop.is_asked() && self.has_done() && !self.stream.stream.is_readable() {
                    return Next::End(Ending::Closed);
                }
            }
            if let Err(ending) = self.limit_login() {
                return Next::End(ending);
            }
            let filled = self.inbox.fill(&mut self.stream, INBOX_LEN_MAX);
            slot.set_idle(false);
            match filled {
                Ok(0) if between_frames => return Next::End(Ending::Closed),
                Ok(0) => return Next::End(Ending::Broken { what: "a header".to_owned(), why: "ended early".to_owned() }),
                Ok(_) => slot.set_spoken(),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // The deadline is looked at above.
                Err(error) if net::is_stall(&error) && self.login_by.is_some() => {}
                // A peer may have nothing to do for as long as it likes.
                Err(error) if between_frames && net::is_stall(&error) => {
                    self.inbox.release();
                    self.stream.release();
                    self.source = None;
                }
                Err(error) => return Next::End(Ending::broken("a header", &error)),
            }
        }
    }

    /// Is nothing more to come of it once the receiver was asked to stop? Who is about to join a job may
    /// do so: jobs that are under way may end.
    fn has_done(&self) -> bool {
        match &self.state {
            State::Joined(attached) => attached.session.has_ended(),
            State::New | State::Greeted => self.dialect == Some(Dialect::V1),
        }
    }

    /// Finds out what is spoken: the first bytes decide for good. What is no frame after them is a
    /// malformed one.
    fn find_dialect(&mut self) -> Result<(), Ending> {
        while self.dialect.is_none() {
            let Some(dialect) = hello::recognise(self.inbox.bytes()) else {
                let may_wait = self.shared.config.serves_v1 && self.inbox.bytes().first() != v2::MAGIC.first();
                if !self.inbox.bytes().is_empty() && !may_wait {
                    self.begin_login();
                }
                return Ok(());
            };
            let is_encrypted = self.stream.stream.is_encrypted();
            match dialect {
                Dialect::V1 if is_encrypted => return Err(Ending::Foreign),
                Dialect::V1 if !self.shared.config.serves_v1 => {
                    return Err(Ending::refused(self.why_no_v1()));
                }
                Dialect::V1 if self.shared.stop.is_asked() => return Err(Ending::refused(STOPPING)),
                Dialect::V1 => {}
                Dialect::V2 if !is_encrypted && !self.shared.config.serves_plain => {
                    self.dialect = Some(Dialect::V2);
                    return Err(Ending::refused("only encrypted connections are served here: leave --plain out"));
                }
                Dialect::V2 => {
                    self.inbox.consume(v2::MAGIC.len());
                    self.begin_login();
                }
                Dialect::Tls => {
                    let (false, Some(tls)) = (is_encrypted, &self.shared.config.tls) else { return Err(Ending::Foreign) };
                    let deadline = self.begin_login();
                    let first = self.inbox.bytes().to_vec();
                    self.inbox.consume(first.len());
                    self.stream.stream.start_tls_server(tls, &first, deadline).map_err(Ending::refused)?;
                    continue;
                }
                Dialect::Unknown => return Err(Ending::Foreign),
            }
            self.dialect = Some(dialect);
        }
        Ok(())
    }

    /// From the first time this is called it has to join a job within a time; until when.
    fn begin_login(&mut self) -> Instant {
        self.slot.set_joining();
        *self.login_by.get_or_insert_with(|| Instant::now() + self.shared.config.login)
    }

    /// Sees to it that no read lasts longer than the login may.
    fn limit_login(&self) -> Result<(), Ending> {
        let Some(login_by) = self.login_by else { return Ok(()) };
        let left = login_by.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(Ending::refused(format!("{BUSY}the time to join a job is over")));
        }
        self.stream.stream.handle().limit_waits(left).map_err(|error| Ending::broken("a login", &error))
    }

    /// Is this an order of one who has left? It may have been given again on another connection
    /// since, and a file must not be created twice. Looked at after any time that is long enough.
    fn is_stale(&mut self) -> bool {
        let now = Instant::now();
        let long_since = now.duration_since(std::mem::replace(&mut self.served, now)) >= STALE_AFTER;
        long_since && self.stream.stream.handle().is_reset()
    }

    /// Serves the frame that is here.
    fn serve_frame(&mut self) -> Result<(), Ending> {
        if self.is_stale() {
            return Err(Ending::Closed);
        }
        let Some((request, len)) = self.decode().map_err(Ending::refused)? else { return Ok(()) };
        if let Some(why) = self.objection(&request) {
            let put = if let Request::Put(put) = request { Some(put) } else { None };
            self.inbox.consume(len);
            return self.refuse(put, why)?.map_err(|error| Ending::broken("an answer", &error));
        }
        let answered = match request {
            Request::MakeDirectories(names) => {
                let done = handlers::make_directories(&self.tree()?.store, names, &self.audit);
                self.inbox.consume(len);
                self.stream.answer(&[v1::answer_to_list(done)])
            }
            Request::CreateFiles(names) => {
                let done = handlers::create_files(&self.tree()?.store, names, &self.audit);
                self.inbox.consume(len);
                self.stream.answer(&[v1::answer_to_list(done)])
            }
            Request::Write { name, range } => {
                let name = name.to_vec();
                self.inbox.consume(len);
                let store = &self.tree()?.store;
                let digest = handlers::write(store, &mut self.inbox, &mut self.stream, &name, range, &self.audit)?;
                self.stream.answer(&digest.to_hex())
            }
            Request::Put(put) => {
                self.inbox.consume(len);
                let reply = self.put(put)?;
                self.stream.reply(&reply)
            }
            Request::Hello { versions, features } => {
                self.inbox.consume(len);
                self.greet(&versions, features)?
            }
            Request::Open(open) => {
                self.inbox.consume(len);
                self.open(open)?
            }
            Request::SignUp { user, password } => {
                self.inbox.consume(len);
                self.sign_up(&user, &password)?
            }
            Request::Join(token) => {
                self.inbox.consume(len);
                self.join(&token)?
            }
            Request::Have(batch) => {
                self.inbox.consume(len);
                let session = self.session()?;
                let reply = handlers::have(&mut self.folders, &session, &batch);
                self.stream.reply(&reply)
            }
            Request::Verify(known, digest) => {
                self.inbox.consume(len);
                let session = self.session()?;
                let stop = self.shared.stop;
                let answer = handlers::verify(stop, &mut self.folders, &session, (&known, &digest), &mut self.stream);
                self.stream.reply(&Reply::Answer(answer))
            }
            Request::Describe(entry) => {
                self.inbox.consume(len);
                let session = self.session()?;
                let answer = handlers::describe(&mut self.folders, &session, &entry, &self.audit);
                self.stream.reply(&Reply::Answer(answer))
            }
            Request::Read(read) => {
                self.inbox.consume(len);
                self.read(&read)?
            }
            Request::List(list) => {
                self.inbox.consume(len);
                self.list(&list)?
            }
            request @ (Request::Remove { .. }
            | Request::Rename { .. }
            | Request::MakeDirectory { .. }
            | Request::Sum { .. }
            | Request::Space
            | Request::ChangePassword { .. }) => {
                let act = Act::of(request);
                self.inbox.consume(len);
                let session = self.session()?;
                let reply = acts::serve(self.shared, &session, act, &mut self.stream, &self.audit)?;
                self.stream.reply(&reply)
            }
            Request::Relay { to } => {
                self.inbox.consume(len);
                return self.relay(&to);
            }
            Request::Finish => {
                self.inbox.consume(len);
                let session = self.session()?;
                self.finish(&session)
            }
        };
        answered.map_err(|error| Ending::broken("an answer", &error))
    }

    /// The tree that v1 writes to.
    fn tree(&self) -> Result<&'a Home, Ending> {
        self.shared
            .homes
            .tree()
            .map(Arc::as_ref)
            .ok_or_else(|| Ending::refused("protocol v1 is not spoken here: it knows no login"))
    }

    /// The job that this connection works on.
    fn session(&self) -> Result<Arc<Session>, Ending> {
        match &self.state {
            State::Joined(attached) => match attached.session.over() {
                None => Ok(Arc::clone(&attached.session)),
                Some(why) => Err(Ending::refused(why)),
            },
            State::New | State::Greeted => Err(Ending::refused("a request before a job was joined")),
        }
    }

    fn greet(&mut self, versions: &std::ops::RangeInclusive<u8>, features: Features) -> Result<io::Result<()>, Ending> {
        if !matches!(self.state, State::New) {
            return Err(Ending::refused("a second hello"));
        }
        let (ours, theirs) = (v2::VERSIONS, versions);
        let version = *ours.end().min(theirs.end());
        if version < *ours.start().max(theirs.start()) {
            let why = format!(
                "no version in common: this receiver speaks {} to {}, the sender {} to {}",
                ours.start(),
                ours.end(),
                theirs.start(),
                theirs.end()
            );
            return Err(Ending::refused(why));
        }
        self.state = State::Greeted;
        self.features = features.and(self.shared.config.features).asking(self.shared.config.compression);
        Ok(self.stream.reply(&Reply::Welcome { version, features: self.features }))
    }

    fn open(&mut self, mut open: Open) -> Result<io::Result<()>, Ending> {
        let State::Greeted = self.state else { return Err(Ending::refused("a job is opened once, after a hello")) };
        let Shared { sessions, stop, .. } = self.shared;
        sessions.admit(&open.credential).map_err(Ending::refused)?;
        let admitted = self.admit(&mut open)?;
        if let Some(why) = rights_of::refusal_to_open(&admitted.home, &open).or_else(|| self.refusal_to_relay(&open)) {
            return Err(Ending::refused(why));
        }
        self.limit_account(&admitted.home)?;
        let store = &admitted.home.store;
        let shown = Escaped::start_of(&open.directory).to_string();
        let base = admitted.home.resolve_folder(&open.directory);
        let base = base.map_err(|error| Ending::refused(format!("folder '{shown}': {error}")))?;
        let (is_dry, purpose) = (open.is_dry, open.purpose);
        let make_base = |base: &RemotePath, made: &Made| {
            if stop.is_asked() {
                return Err(STOPPING.to_owned());
            }
            match purpose {
                Purpose::Bring => {}
                Purpose::Browse => return browse::look_for(store, base, &shown).map(|()| false),
                Purpose::Relay => return Ok(false),
            }
            let is_new = if is_dry { store.is_missing(base) } else { store.open_base(base, made) };
            is_new.map_err(|error| format!("folder '{shown}': {error}"))
        };
        let (attached, is_known) =
            sessions.open(&admitted, open, (base, self.shared.config), make_base).map_err(Ending::refused)?;
        let landed = admitted.home.landed(&attached.session.landing.base);
        let of = admitted.home.owner.as_ref().map_or(String::new(), |owner| format!(" of {}", owner.name));
        match purpose {
            // Each of its connections opens it.
            Purpose::Relay if is_known => {}
            Purpose::Relay => self.log(&format!("a job{of} that has connections passed on")),
            Purpose::Bring | Purpose::Browse => self.log(&format!("a job{of} for {}", Escaped::path(&landed))),
        }
        if !is_known {
            self.audit.opened(&attached.session);
        }
        let reply = Reply::Opened {
            is_new: attached.session.landing.is_new && !is_known,
            is_known,
            landed: landed.as_os_str().as_bytes().to_vec(),
        };
        self.set_joined(attached)?;
        Ok(self.stream.reply(&reply))
    }

    /// Why the job must end, if it must.
    fn over(&self) -> Option<&'static str> {
        match &self.state {
            State::Joined(attached) => attached.session.over(),
            State::New | State::Greeted => None,
        }
    }

    fn join(&mut self, token: &Token) -> Result<io::Result<()>, Ending> {
        let State::Greeted = self.state else { return Err(Ending::refused("a job is joined once, after a hello")) };
        let deadline = self.login_by.unwrap_or_else(Instant::now);
        // It may be waited for: what was said so far is to arrive.
        self.stream.send_answers().map_err(|error| Ending::broken("an answer", &error))?;
        let attached = self.shared.sessions.join(token, deadline, self.shared.stop).map_err(Ending::refused)?;
        self.limit_account(&attached.session.home)?;
        self.set_joined(attached)?;
        Ok(self.stream.reply(&Reply::Answer(Answer::of(Status::Stored))))
    }

    fn set_joined(&mut self, attached: Attached<'a>) -> Result<(), Ending> {
        self.login_by = None;
        self.slot.set_session(&attached.session);
        self.audit.joined(&attached.session);
        self.stream.join(&attached.session, self.shared.pace, self.features.level(attached.session.open.compression));
        self.folders = attached.session.landing.folders();
        self.state = State::Joined(attached);
        let limited = self.stream.stream.handle().limit_waits(self.shared.config.stall);
        limited.map_err(|error| Ending::broken("a login", &error))
    }

    fn put(&mut self, put: Put) -> Result<Reply, Ending> {
        let session = &self.session()?;
        let waited = self.stream.waited;
        let stop = self.shared.stop;
        let receiver = handlers::Receiver { stop, session, folders: &mut self.folders, audit: &self.audit };
        let answer = receiver.put(&mut self.inbox, &mut self.stream, &put);
        session.landing.counts.receiving.add(self.stream.waited - waited);
        self.shared.metrics.receiving.add(self.stream.waited - waited);
        answer
    }

    fn finish(&mut self, session: &Session) -> io::Result<()> {
        let stream = &mut self.stream;
        let finished = finish::finish(session, &self.audit, &mut |reply| {
            stream.reply(reply)?;
            stream.send_answers()
        });
        let counts = &session.landing.counts;
        let (files, bytes, failed) = (counts.files.sum(), counts.bytes.sum(), counts.failed.sum());
        let done = match session.open.purpose {
            Purpose::Bring => "written",
            Purpose::Browse => "sent",
            Purpose::Relay => "passed on",
        };
        self.log(&format!("a job has ended: {files} files, {bytes} bytes {done}, {failed} failed"));
        finished
    }

    /// Notes what the receiver's owner wants to know; who copies on this machine knows it.
    fn log(&self, what: &str) {
        match self.peer {
            Peer::Host(_) => tracing::info!("{}: {what}", self.peer),
            Peer::Local => tracing::debug!("{}: {what}", self.peer),
        }
    }
}
