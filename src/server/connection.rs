//! One accepted stream: read a request → dispatch → answer, until it ends.

use std::io::{self, Write as _};
use std::time::Instant;

use super::Served;
use super::guard::Slot;
use super::handlers::{self, Ending};
use crate::limits::{ANSWERS_MAX, ANSWERS_TIME_MAX, INBOX_LEN_MAX, STALE_AFTER};
use crate::net::{self, Peer, Stream};
use crate::protocol::hello::{self, Dialect};
use crate::protocol::{Request, v1};
use crate::pump::Inbox;
use crate::stop::Stop;
use crate::store::Store;

/// One connection while it is served.
struct Connection<'a> {
    store: &'a Store,
    peer: Peer,
    /// When a frame was served last.
    served: Instant,
    /// What it speaks, once that is known.
    dialect: Option<Dialect>,
    inbox: Inbox,
    /// Reads from the peer; sends the answers that wait before it waits for more.
    stream: Answering,
}

/// A stream that never waits for its peer while the peer may be waiting for it.
struct Answering {
    stream: Stream,
    answers: Vec<u8>,
    /// Frames whose answers wait, and since when the first of them does.
    waiting: usize,
    since: Option<Instant>,
}

impl Answering {
    /// Adds to the answers that go out before the next read, or when enough wait or long enough:
    /// what was read at once may be work for minutes on a slow disk.
    fn answer(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.answers.extend_from_slice(bytes);
        self.waiting += 1;
        let since = *self.since.get_or_insert_with(Instant::now);
        if self.waiting >= ANSWERS_MAX || since.elapsed() >= ANSWERS_TIME_MAX { self.send_answers() } else { Ok(()) }
    }

    fn send_answers(&mut self) -> io::Result<()> {
        if !self.answers.is_empty() {
            self.stream.write_all(&self.answers)?;
            self.answers.clear();
            (self.waiting, self.since) = (0, None);
        }
        Ok(())
    }
}

impl io::Read for Answering {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        self.send_answers()?;
        self.stream.read(bytes)
    }
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
pub(super) fn serve(stream: Stream, slot: &Slot<'_>, store: &Store, stop: &Stop) -> Served {
    let stream = Answering { stream, answers: Vec::new(), waiting: 0, since: None };
    let peer = slot.peer();
    let mut connection = Connection { store, peer, served: Instant::now(), dialect: None, inbox: Inbox::default(), stream };
    tracing::debug!("{peer}: connected");
    let ending = loop {
        let ending = match connection.wait_for_frame(slot, stop) {
            // The peer would not hear the answer, and would ask again.
            Next::Frame if slot.is_cut() => Err(Ending::Closed),
            Next::Frame => connection.serve_frame(),
            Next::End(ending) => Err(ending),
        };
        if let Err(ending) = ending {
            break ending;
        }
    };
    let (cut, mid_frame) = (slot.is_cut(), matches!(ending, Ending::Broken { .. }));
    match &ending {
        Ending::Closed => tracing::debug!("{peer}: disconnected"),
        Ending::Foreign => tracing::debug!("{peer}: closed, speaks nothing that is spoken here"),
        Ending::Broken { .. } if cut => {}
        Ending::Refused { .. } | Ending::Broken { .. } => tracing::warn!("{peer}: {ending}"),
    }
    // Answers that were given are sent even to one who is refused.
    let _ = connection.stream.send_answers();
    if matches!(ending, Ending::Refused { .. } | Ending::Foreign) && !cut {
        slot.handle().close_in_order();
    }
    // Woken between two frames, it may have been about to read the next.
    if mid_frame && (cut || stop.is_asked()) { Served::Cut } else { Served::Whole }
}

impl Connection<'_> {
    /// Waits until the header of a frame is here, and all of a list.
    fn wait_for_frame(&mut self, slot: &Slot<'_>, stop: &Stop) -> Next {
        loop {
            let bytes = self.inbox.bytes();
            // The first bytes decide for good: what is no frame after them is a malformed one.
            self.dialect = self.dialect.or_else(|| hello::recognise(bytes));
            match self.dialect {
                Some(Dialect::Unknown) => return Next::End(Ending::Foreign),
                Some(Dialect::V1) => match v1::decode(bytes) {
                    Ok(Some(_)) => return Next::Frame,
                    Err(error) => return Next::End(Ending::refused(error)),
                    Ok(None) => {}
                },
                None => {}
            }
            let between_frames = bytes.is_empty();
            if between_frames {
                slot.set_idle(true);
                // Set before asked: either this sees the request to stop or its maker sees this.
                if stop.is_asked() && !slot.handle().is_readable() {
                    return Next::End(Ending::Closed);
                }
            }
            let filled = self.inbox.fill(&mut self.stream, INBOX_LEN_MAX);
            slot.set_idle(false);
            match filled {
                Ok(0) if between_frames => return Next::End(Ending::Closed),
                Ok(0) => return Next::End(Ending::Broken { what: "a header".to_owned(), why: "ended early".to_owned() }),
                Ok(_) => slot.set_spoken(),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // A peer may have nothing to do for as long as it likes.
                Err(error) if between_frames && net::is_stall(&error) => self.inbox.release(),
                Err(error) => return Next::End(Ending::broken("a header", &error)),
            }
        }
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
        let Ok(Some((request, len))) = v1::decode(self.inbox.bytes()) else { return Ok(()) };
        let answered = match request {
            Request::MakeDirectories(names) => {
                let done = handlers::make_directories(self.store, names, self.peer);
                self.inbox.consume(len);
                self.stream.answer(&[v1::answer_to_list(done)])
            }
            Request::CreateFiles(names) => {
                let done = handlers::create_files(self.store, names, self.peer);
                self.inbox.consume(len);
                self.stream.answer(&[v1::answer_to_list(done)])
            }
            Request::Write { name, range } => {
                let name = name.to_vec();
                self.inbox.consume(len);
                let digest = handlers::write(self.store, &mut self.inbox, &mut self.stream, &name, range)?;
                self.stream.answer(&digest.to_hex())
            }
        };
        answered.map_err(|error| Ending::broken("an answer", &error))
    }
}
