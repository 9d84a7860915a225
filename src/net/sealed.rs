//! The records of TLS on one stream: what is read and written while it is encrypted.
//!
//! Built on rustls's unbuffered interface: one large read from the socket is decrypted where it lies,
//! and many records are encrypted into one buffer and sent by one call. The buffered interface reads
//! a record at a time.

use std::fmt;
use std::io::{self, Read as _, Write as _};
use std::mem;
use std::ops::DerefMut as _;
use std::sync::Arc;
use std::time::Instant;

use rustix::event::PollFlags;
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, recv, send};
use rustls::client::UnbufferedClientConnection;
use rustls::server::UnbufferedServerConnection;
use rustls::unbuffered::{ConnectionState, EncodeError, EncryptError, UnbufferedStatus};
use socket2::Socket;

use super::ahead::send_and_take;
use super::tls::{Client, Server, TlsError};
use super::wait::ready;
use crate::limits::{TLS_HANDSHAKE_LEN_MAX, TLS_INCOMING_LEN, TLS_PLAIN_LEN_MAX, TLS_RECORD_LEN_MAX, TLS_WRITE_LEN};
use crate::stop::Stop;

/// Bytes of a record's header: its type, a version and the length of what follows.
const HEADER_LEN: usize = 5;

/// Types of the records that a TLS peer may begin with: alert and handshake.
const FIRST_TYPES: [u8; 2] = [21, 22];

/// One end of an encrypted stream. The socket is the caller's.
pub(super) struct Sealed {
    end: End,
    incoming: Incoming,
    /// Bytes that were decrypted and had no room where they were asked for.
    spare: Vec<u8>,
    spare_used: usize,
    outgoing: Outgoing,
    /// Bytes that may come while a write waits for room; none where nobody asked for it.
    ahead_len_max: usize,
    /// The peer writes no more.
    is_ended: bool,
    /// A write was not finished: nothing that came after it could be understood.
    is_torn: bool,
    failed: Option<rustls::Error>,
}

enum End {
    Client(UnbufferedClientConnection),
    Server(UnbufferedServerConnection),
}

/// Ciphertext that came and was not decrypted yet.
struct Incoming {
    buffer: Vec<u8>,
    start: usize,
    end: usize,
    /// The first byte of all.
    first: Option<u8>,
}

/// Ciphertext that is to be sent.
#[derive(Default)]
struct Outgoing {
    buffer: Vec<u8>,
    len: usize,
}

/// What to do when the stream is ready for it.
#[derive(Clone, Copy)]
enum Task<'a> {
    Nothing,
    Encrypt(&'a [u8]),
    Close,
}

/// What one step of the protocol came to.
enum Step {
    /// So many bytes were put where they were asked for.
    Plain(usize),
    /// Something of the protocol's own waits to be sent.
    Encoded,
    /// It should be sent now.
    Send,
    /// The task is done.
    Done,
    /// More must come from the peer.
    Blocked,
    /// The peer writes no more.
    Ended,
    /// Nor do we.
    Closed,
}

impl Sealed {
    pub(super) fn client(client: &Client) -> Result<Self, TlsError> {
        let connection = UnbufferedClientConnection::new(Arc::clone(&client.config), Client::name()?)?;
        Ok(Self::new(End::Client(connection)))
    }

    /// The end that was dialled; `first_bytes` were read from the socket already.
    pub(super) fn server(server: &Server, first_bytes: &[u8]) -> Result<Self, TlsError> {
        let mut sealed = Self::new(End::Server(UnbufferedServerConnection::new(Arc::clone(&server.config))?));
        let Some(room) = sealed.incoming.buffer.get_mut(..first_bytes.len()) else {
            return Err(TlsError::Foreign("the peer began with too many bytes"));
        };
        room.copy_from_slice(first_bytes);
        sealed.incoming.end = first_bytes.len();
        sealed.incoming.first = first_bytes.first().copied();
        Ok(sealed)
    }

    fn new(end: End) -> Self {
        Self {
            end,
            incoming: Incoming { buffer: vec![0; TLS_HANDSHAKE_LEN_MAX], start: 0, end: 0, first: None },
            spare: Vec::new(),
            spare_used: 0,
            outgoing: Outgoing::default(),
            ahead_len_max: 0,
            is_ended: false,
            is_torn: false,
            failed: None,
        }
    }

    /// The certificate that the peer showed.
    pub(super) fn certificate(&self) -> Option<&[u8]> {
        let certificates = match &self.end {
            End::Client(connection) => connection.peer_certificates(),
            End::Server(connection) => connection.peer_certificates(),
        };
        certificates.and_then(|certificates| certificates.first()).map(|certificate| certificate.as_ref())
    }

    fn is_handshaking(&self) -> bool {
        match &self.end {
            End::Client(connection) => connection.is_handshaking(),
            End::Server(connection) => connection.is_handshaking(),
        }
    }

    fn wants_write(&self) -> bool {
        match &self.end {
            End::Client(connection) => connection.wants_write(),
            End::Server(connection) => connection.wants_write(),
        }
    }

    /// Agrees on keys with the peer, which has until `deadline` however it spreads its bytes.
    pub(super) fn shake_hands(&mut self, socket: &Socket, deadline: Instant, stop: Option<&Stop>) -> Result<(), TlsError> {
        loop {
            match self.step(&mut [], Task::Nothing) {
                Ok(Step::Plain(_) | Step::Encoded | Step::Done) => {}
                Ok(Step::Send) => self.send_until(socket, deadline, stop)?,
                // A peer may end right after its last word of the handshake.
                Ok(Step::Blocked | Step::Ended | Step::Closed) if !self.is_handshaking() => return Ok(()),
                Ok(Step::Blocked) => self.receive_until(socket, deadline, stop)?,
                Ok(Step::Ended | Step::Closed) => return Err(self.ended_early()),
                Err(error) => {
                    self.send_alert(socket);
                    return Err(error.into());
                }
            }
        }
    }

    /// Ends it both ways, whoever begins; gives what came behind its end.
    pub(super) fn end(mut self, socket: &Socket, deadline: Instant, stop: &Stop) -> Result<Vec<u8>, TlsError> {
        if self.spare_used < self.spare.len() || self.is_torn {
            return Err(TlsError::Foreign("the peer says more than it was asked"));
        }
        self.perform(Task::Close).map_err(TlsError::Broken)?;
        self.send_until(socket, deadline, Some(stop))?;
        loop {
            if !self.spare.is_empty() {
                return Err(TlsError::Foreign("the peer says more than it was asked"));
            }
            if self.is_ended {
                break;
            }
            match self.step(&mut [], Task::Nothing)? {
                Step::Plain(_) | Step::Encoded | Step::Send | Step::Done | Step::Ended => {}
                Step::Closed => break,
                Step::Blocked => self.receive_until(socket, deadline, Some(stop))?,
            }
        }
        Ok(self.incoming.buffer[self.incoming.start..self.incoming.end].to_vec())
    }

    fn send_until(&mut self, socket: &Socket, deadline: Instant, stop: Option<&Stop>) -> Result<(), TlsError> {
        let mut unsent = &self.outgoing.buffer[..self.outgoing.len];
        while !unsent.is_empty() {
            match send(socket, unsent, SendFlags::DONTWAIT | SendFlags::NOSIGNAL) {
                Ok(len) => unsent = &unsent[len..],
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => {
                    ready(socket, PollFlags::OUT, Some(deadline), stop).then_some(()).ok_or_else(|| self.late())?
                }
                Err(errno) => return Err(self.broken(errno.into())),
            }
        }
        self.outgoing.len = 0;
        Ok(())
    }

    fn receive_until(&mut self, socket: &Socket, deadline: Instant, stop: Option<&Stop>) -> Result<(), TlsError> {
        self.incoming.make_room(TLS_HANDSHAKE_LEN_MAX);
        if self.incoming.end == self.incoming.buffer.len() {
            return Err(TlsError::Failed(rustls::Error::PeerSentOversizedRecord));
        }
        loop {
            // Asked first, so that a peer that always has a byte more does not get more time.
            if !ready(socket, PollFlags::IN, Some(deadline), stop) {
                return Err(self.late());
            }
            match self.incoming.receive_available(socket) {
                Ok(Some(0)) => return Err(self.ended_early()),
                Ok(Some(_)) => return Ok(()),
                Ok(None) => {}
                Err(error) => return Err(self.broken(error)),
            }
        }
    }

    /// Did the peer begin with anything that TLS begins with?
    fn is_foreign(&self) -> bool {
        self.incoming.first.is_none_or(|first| !FIRST_TYPES.contains(&first))
    }

    fn late(&self) -> TlsError {
        if self.is_foreign() { TlsError::Foreign("the peer did not answer") } else { TlsError::Late }
    }

    fn ended_early(&self) -> TlsError {
        if self.is_foreign() {
            TlsError::Foreign("the peer closed the connection")
        } else {
            TlsError::Broken(io::ErrorKind::UnexpectedEof.into())
        }
    }

    fn broken(&self, error: io::Error) -> TlsError {
        match error.kind() {
            io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe => self.ended_early(),
            _ => TlsError::Broken(error),
        }
    }

    /// Tells the peer what was wrong, if there is room for that in the socket.
    fn send_alert(&mut self, socket: &Socket) {
        let _ = send(socket, &self.outgoing.buffer[..self.outgoing.len], SendFlags::DONTWAIT | SendFlags::NOSIGNAL);
        (self.outgoing.len, self.is_torn) = (0, true);
    }

    /// Would a read return without asking the socket? A record may hold nothing, so that it would not.
    pub(super) fn is_readable(&self) -> bool {
        self.is_ended || self.failed.is_some() || self.spare_used < self.spare.len() || self.incoming.has_record()
    }

    /// Reads; without `waiting`, only what is here already. 0 means the end: the peer's own, or just
    /// that of the connection.
    pub(super) fn read(&mut self, socket: &Socket, bytes: &mut [u8], waiting: bool) -> io::Result<Option<usize>> {
        let mut len = self.take_spare(bytes);
        let mut may_receive = true;
        loop {
            // Where less than a record has room, the rest would be copied once more.
            while len == 0 || bytes.len() - len >= TLS_PLAIN_LEN_MAX {
                match self.step(&mut bytes[len..], Task::Nothing) {
                    Ok(Step::Plain(more)) => len += more,
                    // It goes out with the next write: a read must not wait for the peer to read.
                    Ok(Step::Encoded | Step::Send | Step::Done) => {}
                    Ok(Step::Blocked | Step::Ended | Step::Closed) => break,
                    Err(_) if len > 0 => break,
                    Err(error) => {
                        self.send_alert(socket);
                        return Err(io::Error::new(io::ErrorKind::InvalidData, error));
                    }
                }
            }
            if len > 0 || self.is_ended || bytes.is_empty() {
                return Ok(Some(len));
            }
            if !may_receive {
                return Ok(None);
            }
            may_receive = waiting;
            self.incoming.make_room(TLS_INCOMING_LEN);
            let received = if waiting { self.incoming.receive(socket)? } else { self.incoming.receive_available(socket)? };
            self.is_ended = received == Some(0);
        }
    }

    fn take_spare(&mut self, bytes: &mut [u8]) -> usize {
        let spare = &self.spare[self.spare_used..];
        let len = spare.len().min(bytes.len());
        bytes[..len].copy_from_slice(&spare[..len]);
        self.spare_used += len;
        if self.spare_used == self.spare.len() {
            self.spare.clear();
            self.spare_used = 0;
        }
        len
    }

    /// Writes some of `bytes`, and returns when they are in the socket. After an error the stream
    /// can't be written to any more: a part of a record may be on its way.
    pub(super) fn write(&mut self, socket: &Socket, bytes: &[u8]) -> io::Result<usize> {
        let bytes = &bytes[..bytes.len().min(TLS_WRITE_LEN)];
        if !bytes.is_empty() {
            self.perform(Task::Encrypt(bytes))?;
            self.send(socket)?;
        }
        Ok(bytes.len())
    }

    /// Tells the peer that nothing more comes.
    pub(super) fn close(&mut self, socket: &Socket) -> io::Result<()> {
        self.perform(Task::Close)?;
        self.send(socket)?;
        self.is_torn = true;
        Ok(())
    }

    /// Gives memory back where nothing waits in it.
    pub(super) fn release(&mut self) {
        if self.incoming.start == self.incoming.end {
            (self.incoming.buffer, self.incoming.start, self.incoming.end) = (Vec::new(), 0, 0);
        }
        if self.outgoing.len == 0 {
            self.outgoing.buffer = Vec::new();
        }
        if self.spare.is_empty() {
            self.spare = Vec::new();
        }
    }

    fn perform(&mut self, task: Task<'_>) -> io::Result<()> {
        loop {
            if self.is_torn {
                return Err(io::ErrorKind::BrokenPipe.into());
            }
            // What arrived meanwhile is decrypted on the way. It is no more than the buffer holds, or may be
            // taken in while a write waits.
            match self.step(&mut [], task) {
                Ok(Step::Done) => return Ok(()),
                Ok(Step::Plain(_) | Step::Encoded | Step::Send | Step::Ended) => {}
                Ok(Step::Blocked | Step::Closed) => return Err(io::ErrorKind::BrokenPipe.into()),
                Err(error) => return Err(io::Error::new(io::ErrorKind::InvalidData, error)),
            }
        }
    }

    /// From now on a write that waits for room takes in what comes, up to so many bytes.
    pub(super) fn read_ahead(&mut self, len_max: usize) {
        self.ahead_len_max = len_max;
    }

    fn send(&mut self, mut socket: &Socket) -> io::Result<()> {
        let len = mem::take(&mut self.outgoing.len);
        let sent = if self.ahead_len_max == 0 {
            socket.write_all(&self.outgoing.buffer[..len])
        } else {
            self.send_and_take(socket, len)
        };
        self.is_torn |= sent.is_err();
        sent
    }

    /// Sends so many bytes, and takes in what comes while they wait.
    fn send_and_take(&mut self, socket: &Socket, len: usize) -> io::Result<()> {
        self.spare.drain(..self.spare_used);
        self.spare_used = 0;
        // Decrypted it is no longer than it was.
        let len_max = self.ahead_len_max.saturating_sub(self.spare.len());
        let Self { incoming, outgoing, is_ended, .. } = self;
        let mut unsent = &outgoing.buffer[..len];
        while !unsent.is_empty() {
            let sent = send_and_take(socket, unsent, |socket| {
                if *is_ended || !incoming.has_room(len_max) {
                    return Ok(false);
                }
                *is_ended = incoming.receive_available(socket)? == Some(0);
                Ok(!*is_ended && incoming.has_room(len_max))
            })?;
            unsent = &unsent[sent..];
        }
        Ok(())
    }

    /// Takes the protocol one step further. Decrypted bytes go to `bytes`, and the rest is spared.
    fn step(&mut self, bytes: &mut [u8], task: Task<'_>) -> Result<Step, rustls::Error> {
        if let Some(error) = &self.failed {
            return Err(error.clone());
        }
        let step = self.step_anyway(bytes, task);
        match &step {
            Ok(Step::Ended | Step::Closed) => self.is_ended = true,
            Ok(_) => {}
            Err(error) => {
                self.failed = Some(error.clone());
                // What is left to say is an alert.
                while self.wants_write() && self.step_anyway(&mut [], Task::Nothing).is_ok() {}
            }
        }
        step
    }

    fn step_anyway(&mut self, bytes: &mut [u8], task: Task<'_>) -> Result<Step, rustls::Error> {
        let Self { end, incoming, spare, outgoing, .. } = self;
        let records = &mut incoming.buffer[incoming.start..incoming.end];
        let (used, step) = match end {
            End::Client(connection) => {
                take_step(connection.deref_mut().process_tls_records(records), bytes, spare, outgoing, task)
            }
            End::Server(connection) => {
                take_step(connection.deref_mut().process_tls_records(records), bytes, spare, outgoing, task)
            }
        };
        incoming.start += used;
        step
    }
}

/// Does what rustls asks for; gives the number of bytes that it is done with.
fn take_step<Data>(
    status: UnbufferedStatus<'_, '_, Data>, bytes: &mut [u8], spare: &mut Vec<u8>, outgoing: &mut Outgoing, task: Task<'_>,
) -> (usize, Result<Step, rustls::Error>) {
    let UnbufferedStatus { mut discard, state } = status;
    let step = match state {
        Err(error) => Err(error),
        Ok(ConnectionState::ReadTraffic(mut traffic)) => {
            let mut len = 0;
            while let Some(record) = traffic.next_record() {
                let Ok(record) = record else { return (discard, Err(rustls::Error::DecryptError)) };
                discard += record.discard;
                let (fits, rest) = record.payload.split_at(record.payload.len().min(bytes.len() - len));
                bytes[len..len + fits.len()].copy_from_slice(fits);
                len += fits.len();
                spare.extend_from_slice(rest);
            }
            Ok(Step::Plain(len))
        }
        Ok(ConnectionState::EncodeTlsData(mut data)) => outgoing
            .append(TLS_RECORD_LEN_MAX, |room| match data.encode(room) {
                Ok(len) => Ok(Ok(len)),
                Err(EncodeError::InsufficientSize(error)) => Err(error.required_size),
                Err(EncodeError::AlreadyEncoded) => Ok(Err(rustls::Error::EncryptError)),
            })
            .map(|()| Step::Encoded),
        Ok(ConnectionState::TransmitTlsData(data)) => {
            data.done();
            Ok(Step::Send)
        }
        Ok(ConnectionState::WriteTraffic(mut traffic)) => match task {
            Task::Nothing => Ok(Step::Blocked),
            Task::Encrypt(plain) => {
                outgoing.append(sealed_len(plain.len()), |room| sized(traffic.encrypt(plain, room))).map(|()| Step::Done)
            }
            Task::Close => outgoing.append(sealed_len(0), |room| sized(traffic.queue_close_notify(room))).map(|()| Step::Done),
        },
        Ok(ConnectionState::PeerClosed) => Ok(Step::Ended),
        Ok(ConnectionState::Closed) => Ok(Step::Closed),
        // Early data is not allowed.
        Ok(_) => Ok(Step::Blocked),
    };
    (discard, step)
}

fn sized(encrypted: Result<usize, EncryptError>) -> Result<Result<usize, rustls::Error>, usize> {
    match encrypted {
        Ok(len) => Ok(Ok(len)),
        Err(EncryptError::InsufficientSize(error)) => Err(error.required_size),
        Err(EncryptError::EncryptExhausted) => Ok(Err(rustls::Error::EncryptError)),
    }
}

/// Bytes that `len` bytes become, and a little for what TLS may have to say before them.
const fn sealed_len(len: usize) -> usize {
    len + (len / TLS_PLAIN_LEN_MAX + 4) * 64
}

impl Outgoing {
    /// Adds what `fill` puts into room of `len` bytes; if it wants more, as much as it says.
    fn append(
        &mut self, len: usize, mut fill: impl FnMut(&mut [u8]) -> Result<Result<usize, rustls::Error>, usize>,
    ) -> Result<(), rustls::Error> {
        let filled = match fill(self.room(len)) {
            Err(required) => fill(self.room(required)),
            filled => filled,
        };
        self.len += filled.unwrap_or(Err(rustls::Error::EncryptError))?;
        Ok(())
    }

    fn room(&mut self, len: usize) -> &mut [u8] {
        let end = self.len + len;
        if self.buffer.len() < end {
            if self.len == 0 {
                // Fresh zeros come without being touched.
                self.buffer = vec![0; end];
            } else {
                self.buffer.resize(end, 0);
            }
        }
        &mut self.buffer[self.len..]
    }
}

impl Incoming {
    /// Moves what is here to the front of a buffer of `len` bytes.
    fn make_room(&mut self, len: usize) {
        if self.buffer.len() < len {
            let mut buffer = vec![0; len];
            buffer[..self.end - self.start].copy_from_slice(&self.buffer[self.start..self.end]);
            self.buffer = buffer;
        } else if self.start > 0 {
            self.buffer.copy_within(self.start..self.end, 0);
        }
        (self.start, self.end) = (0, self.end - self.start);
    }

    /// May more come, with no more than so many bytes in all? Makes room for it.
    fn has_room(&mut self, len_max: usize) -> bool {
        let len = self.end - self.start;
        if self.end == self.buffer.len() && len < len_max {
            self.make_room((2 * len).clamp(TLS_INCOMING_LEN, len_max.max(TLS_INCOMING_LEN)));
        }
        len < len_max && self.end < self.buffer.len()
    }

    /// Is a whole record here?
    fn has_record(&self) -> bool {
        let bytes = &self.buffer[self.start..self.end];
        bytes.len() >= HEADER_LEN && bytes.len() - HEADER_LEN >= usize::from(u16::from_be_bytes([bytes[3], bytes[4]]))
    }

    fn receive(&mut self, mut socket: &Socket) -> io::Result<Option<usize>> {
        let len = socket.read(&mut self.buffer[self.end..])?;
        self.end += len;
        Ok(Some(len))
    }

    fn receive_available(&mut self, socket: &Socket) -> io::Result<Option<usize>> {
        match recv(socket, &mut self.buffer[self.end..], RecvFlags::DONTWAIT) {
            Ok((len, _)) => {
                self.end += len;
                self.first = self.first.or_else(|| self.buffer[..self.end].first().copied());
                Ok(Some(len))
            }
            Err(Errno::AGAIN | Errno::INTR) => Ok(None),
            Err(errno) => Err(errno.into()),
        }
    }
}

impl fmt::Debug for Sealed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let waiting = self.incoming.end - self.incoming.start;
        f.debug_struct("Sealed").field("incoming", &waiting).field("is_ended", &self.is_ended).finish_non_exhaustive()
    }
}
