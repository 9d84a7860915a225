//! A client by hand: it says what it is told to say, and gives the replies as they come.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpStream};
use std::ops::Range;
use std::sync::atomic::{AtomicU8, Ordering};

use parallel_transfer::digest::{self, Binding, Checksum};
use parallel_transfer::entry::{Attributes, Entry, FileMeta, Identity, Kind, Listed, ListedKind};
use parallel_transfer::limits::BLOCK_LEN;
use parallel_transfer::path::RemotePath;
use parallel_transfer::protocol::v2::payload::Mark;
use parallel_transfer::protocol::v2::{MAGIC, VERSIONS, request};
use parallel_transfer::protocol::{Answer, Features, List, Open, Purpose, Reply, Status, Token, Totals, Wanted};

use crate::common::guest::next_reply;
use crate::common::yard::Yard;
use crate::common::*;

pub(crate) const MTIME: (i64, u32) = (1_600_000_000, 7);

/// One connection.
pub(crate) struct Client {
    pub(crate) stream: TcpStream,
    inbox: Vec<u8>,
}

impl Client {
    /// Connects and says nothing.
    pub(crate) fn silent(recv: &Recv) -> Self {
        Self { stream: recv.connect(), inbox: Vec::new() }
    }

    /// Connects and greets.
    pub(crate) fn greeted(recv: &Recv) -> Self {
        let mut client = Self::silent(recv);
        client.send(&hello());
        assert!(matches!(client.reply(), Some(Reply::Welcome { version: 2, .. })));
        client
    }

    /// Connects and opens a job in the folder `in`.
    pub(crate) fn opened(recv: &Recv) -> Self {
        Self::with(recv, &open(new_token()))
    }

    /// Connects and opens this job.
    pub(crate) fn with(recv: &Recv, open: &Open) -> Self {
        let mut client = Self::greeted(recv);
        client.send(&open_frame(open));
        let reply = client.reply();
        assert!(matches!(reply, Some(Reply::Opened { .. })), "{reply:?}");
        client
    }

    /// Connects and joins a job.
    pub(crate) fn joined(recv: &Recv, token: Token) -> Self {
        let mut client = Self::greeted(recv);
        client.send(&join_frame(token));
        assert_eq!(client.status(), Status::Stored);
        client
    }

    pub(crate) fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).unwrap();
    }

    /// The next reply but heartbeats; none at the connection's end.
    pub(crate) fn reply(&mut self) -> Option<Reply> {
        let reply = next_reply(&mut self.stream, &mut self.inbox);
        assert!(reply.is_some() || self.inbox.is_empty(), "the end came in the middle of a reply");
        reply
    }

    pub(crate) fn answer(&mut self) -> Answer {
        match self.reply() {
            Some(Reply::Answer(answer)) => answer,
            other => panic!("no answer but {other:?}"),
        }
    }

    pub(crate) fn status(&mut self) -> Status {
        self.answer().status
    }

    /// Asks what of a file is wanted.
    pub(crate) fn wanted(&mut self, question: &[u8]) -> Wanted {
        self.send(question);
        match self.reply() {
            Some(Reply::Wanted(wanted)) => wanted,
            other => panic!("no ranges but {other:?}"),
        }
    }

    /// Asks and gives the answer's status.
    pub(crate) fn ask(&mut self, bytes: &[u8]) -> Status {
        self.send(bytes);
        self.status()
    }

    /// Asks for the end; what is missing, and the totals.
    pub(crate) fn finish(&mut self) -> (Vec<(String, String)>, Totals) {
        self.send(&finish());
        let mut missing = Vec::new();
        loop {
            match self.reply() {
                Some(Reply::Missing { path, reason }) => missing.push((path.to_string(), reason)),
                Some(Reply::Finished(totals)) => return (missing, totals),
                other => panic!("no end but {other:?}"),
            }
        }
    }

    /// Finishes a job of which nothing is missing.
    pub(crate) fn finish_well(&mut self) -> Totals {
        let (missing, totals) = self.finish();
        assert_eq!((missing, totals.failed), (Vec::new(), 0));
        totals
    }

    /// Connects and opens a job that reads below a folder, or a file.
    pub(crate) fn browsing(recv: &Recv, directory: &str) -> Self {
        Self::with(recv, &browse(directory))
    }

    /// All names in a folder, sorted; and why those are not all, if they are not.
    pub(crate) fn try_list(&mut self, name: &str) -> (Vec<Listed>, Option<String>) {
        self.send(&list_frame(name, false));
        let mut all = Vec::new();
        let why = loop {
            match self.reply() {
                Some(Reply::Listed(page)) => {
                    all.extend(page.entries);
                    if page.is_last {
                        break None;
                    }
                }
                Some(Reply::Answer(Answer { status: Status::Refused, reason })) => break Some(reason),
                other => panic!("no list but {other:?}"),
            }
        };
        all.sort_by(|one: &Listed, other| one.name.cmp(&other.name));
        (all, why)
    }

    /// All names in a folder, as text.
    pub(crate) fn names(&mut self, name: &str) -> Vec<String> {
        let (all, why) = self.try_list(name);
        assert_eq!(why, None);
        all.iter().map(|listed| text(&listed.name)).collect()
    }

    /// What a file is.
    pub(crate) fn look(&mut self, name: &str) -> (Identity, bool) {
        self.send(&list_frame(name, true));
        match self.reply() {
            Some(Reply::Listed(page)) if page.is_last && page.entries.len() == 1 && page.entries[0].name.is_empty() => {
                match page.entries[0].kind {
                    ListedKind::File { identity, is_sparse, .. } => (identity, is_sparse),
                    ref other => panic!("no file but {other:?}"),
                }
            }
            other => panic!("no file but {other:?}"),
        }
    }

    /// Asks for a range of a file as it was listed; `None` where it is voided.
    pub(crate) fn read(&mut self, name: &str, file: (Identity, bool), range: Range<u64>) -> Option<Vec<u8>> {
        let asked = Asked::of(name, file, range);
        self.send(&asked.frame);
        self.content(&asked, Checksum::Xxh3)
    }

    /// The content that was asked for, verified; `None` where it is voided.
    pub(crate) fn content(&mut self, asked: &Asked, checksum: Checksum) -> Option<Vec<u8>> {
        match self.reply() {
            Some(Reply::Content) => {}
            Some(Reply::Answer(Answer { status: Status::Voided, .. })) => return None,
            other => panic!("no content but {other:?}"),
        }
        self.rest_of(asked, checksum)
    }

    /// The content whose beginning was announced.
    pub(crate) fn rest_of(&mut self, asked: &Asked, checksum: Checksum) -> Option<Vec<u8>> {
        let mut content = Vec::new();
        loop {
            let at = asked.range.start + content.len() as u64;
            let (is_hole, len) = match Mark::decode(self.take(1)[0]).unwrap() {
                Mark::Same => {
                    assert_eq!(at, asked.range.end);
                    return Some(content);
                }
                Mark::Void => return None,
                Mark::Data => {
                    let block = BLOCK_LEN as u64;
                    (false, (at / block * block + block).min(asked.range.end) - at)
                }
                Mark::Hole => (true, u64::from_be_bytes(self.take(8).try_into().unwrap())),
                Mark::Compressed => panic!("nobody asked for compression"),
            };
            let bytes = self.take(if is_hole { 0 } else { len as usize });
            let is_whole = !is_hole && asked.range == (0..asked.size) && len == asked.size;
            let (digest, _) = checksum.seal(asked.binding.of_block(at, len, is_hole), at, &bytes, is_whole);
            assert_eq!(self.take(checksum.digest_len()), digest[..checksum.digest_len()], "at {at}");
            content.extend_from_slice(&bytes);
            content.resize((at - asked.range.start + len) as usize, 0);
        }
    }

    /// The next bytes.
    fn take(&mut self, len: usize) -> Vec<u8> {
        while self.inbox.len() < len {
            let mut bytes = vec![0; 256 * 1024];
            let read = self.stream.read(&mut bytes).unwrap();
            assert_ne!(read, 0, "the end came in the middle of content");
            self.inbox.extend_from_slice(&bytes[..read]);
        }
        self.inbox.drain(..len).collect()
    }

    /// All that is said until the end, the reason of a refusal last: it must be there.
    pub(crate) fn refusal(&mut self) -> (Vec<Reply>, String) {
        let mut replies: Vec<Reply> = std::iter::from_fn(|| self.reply()).collect();
        match replies.pop() {
            Some(Reply::Refused(why)) => (replies, why),
            last => panic!("no refusal but {last:?} after {replies:?}"),
        }
    }

    /// Says something that is to be refused with these words in the reason, with nothing before it.
    pub(crate) fn expect_refusal(mut self, bytes: &[u8], words: &str) {
        // One who refuses may close before all is written.
        let _ = self.stream.write_all(bytes);
        let (before, why) = self.refusal();
        assert!(before.is_empty() && why.contains(words), "'{words}' is not in '{why}', after {before:?}");
    }

    /// Says all of this, ends its writing, and gives what comes until the end.
    pub(crate) fn rest(mut self, bytes: &[u8]) -> Vec<Reply> {
        let _ = self.stream.write_all(bytes);
        let _ = self.stream.shutdown(Shutdown::Write);
        std::iter::from_fn(|| self.reply()).collect()
    }
}

/// Someone whose job goes on while others misbehave.
pub(crate) struct Bystander(Client);

impl Bystander {
    pub(crate) fn new(yard: &Yard) -> Self {
        let mut client = Client::with(&yard.recv, &Open { directory: b"bystander".to_vec(), ..open(new_token()) });
        assert_eq!(client.ask(&put("before", b"before")), Status::Published);
        Self(client)
    }

    /// All that was wrong is over: the job goes on, nothing is left over and nothing changed outside.
    pub(crate) fn expect_well(mut self, yard: &mut Yard) {
        assert_eq!(self.0.ask(&put("after", b"after")), Status::Published);
        self.0.finish_well();
        drop(self);
        yard.expect_well();
        assert_eq!(list(&yard.root().join("bystander")), ["after", "before"]);
        assert_eq!(temps(yard.root()), Vec::<String>::new());
    }
}

/// Files that are still being received.
pub(crate) fn temps(root: &std::path::Path) -> Vec<String> {
    list(root).into_iter().filter(|name| name.rsplit('/').next().unwrap().starts_with(".ptf-")).collect()
}

/// A frame of any body, right in all that a frame has.
pub(crate) fn frame(kind: u8, body: &[u8]) -> Vec<u8> {
    let len = u32::try_from(body.len()).unwrap();
    [&head(kind, len)[..], body, &digest::check(body, kind.into()).to_be_bytes()[4..]].concat()
}

/// The head of a frame of any length.
pub(crate) fn head(kind: u8, len: u32) -> [u8; 5] {
    let [_, high, middle, low] = len.to_be_bytes();
    [kind, high, middle, low, kind ^ high ^ middle ^ low ^ 0x5a]
}

pub(crate) fn run_of(bytes: &[u8]) -> Vec<u8> {
    [&u16::try_from(bytes.len()).unwrap().to_be_bytes()[..], bytes].concat()
}

/// The greeting.
pub(crate) fn hello() -> Vec<u8> {
    [&MAGIC[..], &hello_frame(VERSIONS, Features::OURS)].concat()
}

pub(crate) fn hello_frame(versions: std::ops::RangeInclusive<u8>, features: Features) -> Vec<u8> {
    let mut bytes = Vec::new();
    request::encode_hello(&mut bytes, versions, features);
    bytes
}

pub(crate) fn new_token() -> Token {
    static NEXT: AtomicU8 = AtomicU8::new(1);
    Token([NEXT.fetch_add(1, Ordering::Relaxed); 32])
}

/// A job in the folder `in`.
pub(crate) fn open(token: Token) -> Open {
    Open { directory: b"in".to_vec(), checksum: Checksum::Xxh3, ..Open::plain(token, Purpose::Bring) }
}

/// A job that reads below a folder, or a file.
pub(crate) fn browse(directory: &str) -> Open {
    Open { directory: directory.as_bytes().to_vec(), purpose: Purpose::Browse, ..open(new_token()) }
}

/// A range of a file that is asked for.
pub(crate) struct Asked {
    pub(crate) frame: Vec<u8>,
    binding: Binding,
    range: Range<u64>,
    size: u64,
}

impl Asked {
    pub(crate) fn of(name: &str, (identity, is_sparse): (Identity, bool), range: Range<u64>) -> Self {
        let mut frame = Vec::new();
        let binding = request::encode_read(&mut frame, &path_or_root(name), &identity, is_sparse, &range);
        Self { frame, binding, range, size: identity.size }
    }
}

fn path_or_root(name: &str) -> RemotePath {
    if name.is_empty() { RemotePath::root() } else { path(name) }
}

pub(crate) fn list_frame(name: &str, itself: bool) -> Vec<u8> {
    let mut bytes = Vec::new();
    request::encode_list(&mut bytes, &List { path: path_or_root(name), itself, owner: false, xattrs: false });
    bytes
}

pub(crate) fn open_frame(open: &Open) -> Vec<u8> {
    let mut bytes = Vec::new();
    request::encode_open(&mut bytes, open);
    bytes
}

pub(crate) fn join_frame(token: Token) -> Vec<u8> {
    let mut bytes = Vec::new();
    request::encode_join(&mut bytes, &token);
    bytes
}

pub(crate) fn finish() -> Vec<u8> {
    let mut bytes = Vec::new();
    request::encode_finish(&mut bytes);
    bytes
}

pub(crate) fn path(name: &str) -> RemotePath {
    RemotePath::parse(name.as_bytes()).unwrap()
}

pub(crate) fn attributes() -> Attributes {
    Attributes { mode: 0o644, owner: None, xattrs: Vec::new() }
}

pub(crate) fn meta(size: u64, tag: u8) -> FileMeta {
    FileMeta { identity: Identity { size, mtime: MTIME, tag: [tag; 16] }, attributes: attributes(), is_sparse: false }
}

/// A whole file.
pub(crate) fn put(name: &str, content: &[u8]) -> Vec<u8> {
    put_range(name, content, 0..content.len(), 1)
}

/// A range of a file with this content, of a source with this tag.
pub(crate) fn put_range(name: &str, content: &[u8], range: Range<usize>, tag: u8) -> Vec<u8> {
    let meta = meta(content.len() as u64, tag);
    let (mut bytes, binding) = put_head(name, &meta, range.start as u64..range.end as u64);
    bytes.extend(blocks(binding, content, range));
    bytes.push(Mark::Same as u8);
    bytes
}

/// The head of a put, and what its payload is bound to.
pub(crate) fn put_head(name: &str, meta: &FileMeta, range: Range<u64>) -> (Vec<u8>, Binding) {
    let mut bytes = Vec::new();
    let binding = request::encode_put(&mut bytes, &path(name), meta, &range);
    (bytes, binding)
}

/// A range in blocks, without the last mark.
pub(crate) fn blocks(binding: Binding, content: &[u8], range: Range<usize>) -> Vec<u8> {
    let (mut bytes, mut at) = (Vec::new(), range.start);
    while at < range.end {
        let end = (at / BLOCK_LEN * BLOCK_LEN + BLOCK_LEN).min(range.end);
        bytes.push(Mark::Data as u8);
        bytes.extend_from_slice(&content[at..end]);
        bytes.extend(seal(binding, at as u64, (end - at) as u64, &content[at..end], false));
        at = end;
    }
    bytes
}

/// A hole.
pub(crate) fn hole(binding: Binding, offset: u64, len: u64) -> Vec<u8> {
    [&[Mark::Hole as u8][..], &len.to_be_bytes(), &seal(binding, offset, len, b"", true)].concat()
}

pub(crate) fn seal(binding: Binding, offset: u64, len: u64, bytes: &[u8], is_hole: bool) -> Vec<u8> {
    let (digest, _) = Checksum::Xxh3.seal(binding.of_block(offset, len, is_hole), offset, bytes, false);
    digest[..Checksum::Xxh3.digest_len()].to_vec()
}

pub(crate) fn describe(name: &str, kind: Kind) -> Vec<u8> {
    describe_with(name, kind, Attributes { mode: 0o755, ..attributes() })
}

pub(crate) fn describe_with(name: &str, kind: Kind, attributes: Attributes) -> Vec<u8> {
    let mut bytes = Vec::new();
    let path = if name.is_empty() { RemotePath::root() } else { path(name) };
    request::encode_describe(&mut bytes, &Entry { path, kind, attributes });
    bytes
}

pub(crate) fn folder(name: &str) -> Vec<u8> {
    describe(name, Kind::Directory { mtime: MTIME })
}

pub(crate) fn symlink_to(name: &str, target: &str) -> Vec<u8> {
    describe(name, Kind::Symlink { target: target.as_bytes().into(), mtime: MTIME })
}

pub(crate) fn hard_link(name: &str, to: &str) -> Vec<u8> {
    describe(name, Kind::HardLink { to: path(to) })
}

/// Asks whether files of these sizes are there.
pub(crate) fn have(files: &[(&str, u64)]) -> Vec<u8> {
    let mut bytes = Vec::new();
    let files: Vec<_> = files.iter().map(|(name, size)| (path(name), meta(*size, 0))).collect();
    request::encode_have(&mut bytes, files.iter().map(|(path, meta)| (path, meta)));
    bytes
}
