//! A server in clear that serves a small tree of its own, and does what it is told to in place of an answer.

use std::collections::HashMap;
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use parallel_transfer::digest::{self, Binding, Checksum};
use parallel_transfer::entry::{Attributes, Identity, Listed, ListedKind, Time};
use parallel_transfer::path::RemotePath;
use parallel_transfer::protocol::v2::payload::Mark;
use parallel_transfer::protocol::v2::{MAGIC, reply, request};
use parallel_transfer::protocol::{Answer, Features, Page, Read, Reply, Request, Space, Status, Token, Totals};

use super::*;

pub const MTIME: Time = (1_600_000_000, 7);

/// What it does with a request.
pub enum Act {
    /// What a server does.
    Honest,
    /// Says this instead.
    Say(Vec<u8>),
    /// Says this for ever: the first, the second and so on.
    ForEver(Box<dyn Fn(u64) -> Vec<u8>>),
    /// Nothing, and keeps the connection.
    Silent,
    /// Closes it.
    Close,
}

/// A request, and where it came.
pub struct Asked<'a> {
    pub request: &'a Request<'a>,
    /// Of a list, a read and what else has a path: below the server's root.
    pub path: String,
    /// How often something of this kind and path was asked before, by whomever.
    pub times: usize,
    pub checksum: Checksum,
}

impl Asked<'_> {
    /// Is it the question what is in this folder?
    pub fn is_contents_of(&self, path: &str) -> bool {
        matches!(self.request, Request::List(list) if !list.itself) && self.path == path
    }

    /// The range that is asked for, if it is of this file.
    pub fn read_of(&self, path: &str) -> Option<&Read> {
        match self.request {
            Request::Read(read) if self.path == path => Some(read),
            _ => None,
        }
    }
}

type Script = dyn Fn(&Asked<'_>) -> Act + Send + Sync;

/// By its token: the checksum and the folder of each job.
type Jobs = HashMap<[u8; 32], (Checksum, String)>;

/// The server. It goes on until the test's process ends.
pub struct FakeServer {
    pub port: u16,
    asked: Arc<Mutex<Vec<String>>>,
}

impl FakeServer {
    pub fn start(script: impl Fn(&Asked<'_>) -> Act + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let server = Self { port: listener.local_addr().unwrap().port(), asked: Arc::default() };
        let (asked, jobs) = (Arc::clone(&server.asked), Arc::<Mutex<Jobs>>::default());
        let script: Arc<Script> = Arc::new(script);
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (asked, jobs, script) = (Arc::clone(&asked), Arc::clone(&jobs), Arc::clone(&script));
                // Whoever is lied to may go away in the middle.
                thread::spawn(move || converse(stream, &asked, &jobs, &*script).unwrap_or_default());
            }
        });
        server
    }

    /// What was asked so far: kind and path, in the order it came.
    pub fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }
}

fn converse(mut stream: TcpStream, asked: &Mutex<Vec<String>>, jobs: &Mutex<Jobs>, script: &Script) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let (mut inbox, mut job) = (Vec::new(), (Checksum::None, String::new()));
    let mut magic = MAGIC;
    stream.read_exact(&mut magic)?;
    assert_eq!(magic, MAGIC, "a client that does not greet");
    loop {
        let mut bytes = [0; 4096];
        let Some((request, len)) = request::decode(&inbox).expect("what our client says") else {
            match stream.read(&mut bytes)? {
                0 => return Ok(()),
                len => inbox.extend_from_slice(&bytes[..len]),
            }
            continue;
        };
        match &request {
            Request::Open(open) => {
                let names = open.directory.split(|&byte| byte == b'/').filter(|name| !name.is_empty() && *name != b".");
                let folder = String::from_utf8(names.collect::<Vec<_>>().join(&b'/')).unwrap();
                job = (open.checksum, folder);
                jobs.lock().unwrap().insert(open.token.0, job.clone());
            }
            Request::Join(Token(token)) => job = jobs.lock().unwrap()[token].clone(),
            _ => {}
        }
        let (kind, path) = place(&request, &job.1);
        let entry = format!("{kind} {path}");
        let times = {
            let mut asked = asked.lock().unwrap();
            asked.push(entry.clone());
            asked.iter().filter(|before| **before == entry).count() - 1
        };
        let told = Asked { request: &request, path, times, checksum: job.0 };
        match script(&told) {
            Act::Honest => stream.write_all(&honest(&told))?,
            Act::Say(bytes) => stream.write_all(&bytes)?,
            Act::ForEver(next) => {
                for number in 0.. {
                    stream.write_all(&next(number))?;
                }
            }
            Act::Silent => loop {
                thread::park();
            },
            Act::Close => return Ok(()),
        }
        inbox.drain(..len);
    }
}

/// The kind of a request, and the path it is about, below the server's root.
fn place(request: &Request<'_>, folder: &str) -> (String, String) {
    let below = |path: &RemotePath| match path.to_string().as_str() {
        "." => folder.to_owned(),
        path if folder.is_empty() => path.to_owned(),
        path => format!("{folder}/{path}"),
    };
    let (kind, path) = match request {
        Request::Hello { .. } => ("hello", String::new()),
        Request::Open(_) => ("open", folder.to_owned()),
        Request::Join(_) => ("join", folder.to_owned()),
        Request::Read(read) => return (format!("read from {} of", read.range.start), below(&read.path)),
        Request::List(list) if list.itself => ("look", below(&list.path)),
        Request::List(list) => ("list", below(&list.path)),
        Request::Sum { path, .. } => ("sum", below(path)),
        Request::Finish => ("finish", String::new()),
        Request::Space => ("space", String::new()),
        _ => ("other", String::new()),
    };
    (kind.to_owned(), path)
}

/// What the server has: folders with their names, and files.
pub enum Node {
    Folder(&'static [&'static str]),
    File(Vec<u8>),
}

/// What is at a path.
pub fn node(path: &str) -> Option<Node> {
    Some(match path {
        "" => Node::Folder(&["x"]),
        "x" => Node::Folder(&["a", "d"]),
        "x/d" => Node::Folder(&["b"]),
        "x/a" => Node::File(noise(70_000, 1)),
        "x/d/b" => Node::File(b"five\n".to_vec()),
        _ => return None,
    })
}

/// The answer of a server that means well.
pub fn honest(asked: &Asked<'_>) -> Vec<u8> {
    let path = &asked.path;
    let nothing = || answer(Status::Refused, &format!("there is nothing at '{path}'"));
    match asked.request {
        Request::Hello { .. } => frame(&Reply::Welcome { version: 2, features: Features::BLAKE3 }),
        Request::Open(_) => match node(path) {
            Some(_) => frame(&opened(format!("/srv/{path}").into_bytes())),
            None => frame(&Reply::Refused(format!("there is nothing at '{path}'"))),
        },
        Request::Join(_) => answer(Status::Stored, ""),
        Request::List(list) if list.itself => match node(path) {
            Some(node) => page(true, vec![listed(b"", path, &node)]),
            None => nothing(),
        },
        Request::List(_) => match node(path) {
            Some(Node::Folder(names)) => page(true, names.iter().map(|name| listed_at(path, name)).collect()),
            _ => nothing(),
        },
        Request::Read(read) => match node(path) {
            Some(Node::File(content)) => content_of(read, asked.checksum, &content, Mark::Same),
            _ => nothing(),
        },
        Request::Sum { .. } => match node(path) {
            Some(Node::File(content)) => frame(&Reply::Sum(digest::Digest::of(&content).0.to_vec())),
            _ => nothing(),
        },
        Request::Space => frame(&Reply::Space(Space { quota: None, free: 5, size: 6 })),
        Request::Finish => frame(&Reply::Finished(Totals::default())),
        _ => answer(Status::Refused, "nobody may do that here"),
    }
}

pub fn opened(landed: Vec<u8>) -> Reply {
    Reply::Opened { is_new: false, is_known: false, landed }
}

/// A reply's bytes: also of one that no decoder takes.
pub fn frame(reply: &Reply) -> Vec<u8> {
    let mut bytes = Vec::new();
    reply::encode(&mut bytes, reply);
    bytes
}

/// A frame of any type with any body.
pub fn raw_frame(kind: u8, body: &[u8]) -> Vec<u8> {
    let [_, high, middle, low] = u32::try_from(body.len()).unwrap().to_be_bytes();
    let head = [kind, high, middle, low, kind ^ high ^ middle ^ low ^ 0x5a];
    [&head[..], body, &digest::check(body, kind.into()).to_be_bytes()[4..]].concat()
}

pub fn answer(status: Status, reason: &str) -> Vec<u8> {
    frame(&Reply::Answer(Answer { status, reason: reason.to_owned() }))
}

pub fn page(is_last: bool, entries: Vec<Listed>) -> Vec<u8> {
    frame(&Reply::Listed(Page { is_last, entries }))
}

/// A name in a folder of the server's tree, as it is.
pub fn listed_at(folder: &str, name: &str) -> Listed {
    let path = if folder.is_empty() { name.to_owned() } else { format!("{folder}/{name}") };
    listed(name.as_bytes(), &path, &node(&path).unwrap())
}

fn listed(name: &[u8], path: &str, node: &Node) -> Listed {
    match node {
        Node::Folder(_) => folder(name),
        Node::File(content) => file(name, path, content.len() as u64),
    }
}

pub fn entry(name: &[u8], kind: ListedKind, mode: u16) -> Listed {
    Listed { name: name.into(), kind, attributes: Attributes { mode, owner: None, xattrs: Vec::new() } }
}

pub fn folder(name: &[u8]) -> Listed {
    entry(name, ListedKind::Directory { mtime: MTIME }, 0o755)
}

pub fn link(name: &[u8], target: impl AsRef<[u8]>) -> Listed {
    entry(name, ListedKind::Symlink { target: target.as_ref().into(), mtime: MTIME }, 0o777)
}

/// A file whose tag is made of `path`.
pub fn file(name: &[u8], path: &str, size: u64) -> Listed {
    entry(name, ListedKind::File { identity: identity(path, size), is_sparse: false, names: 1 }, 0o644)
}

pub fn identity(path: &str, size: u64) -> Identity {
    let [high, low] = digest::name_of(path.as_bytes());
    let mut tag = [0; 16];
    tag[..8].copy_from_slice(&high.to_be_bytes());
    tag[8..].copy_from_slice(&low.to_be_bytes());
    Identity { size, mtime: MTIME, tag }
}

/// The answer to a read of a file with this content, and what comes at its end. Of a file that is
/// shorter than it was listed there is less.
pub fn content_of(read: &Read, checksum: Checksum, content: &[u8], end: Mark) -> Vec<u8> {
    let mut bytes = frame(&Reply::Content);
    bytes.extend(blocks(read, checksum, content));
    bytes.push(end as u8);
    bytes
}

/// The blocks of a range.
pub fn blocks(read: &Read, checksum: Checksum, content: &[u8]) -> Vec<u8> {
    let (mut bytes, mut at, end) = (Vec::new(), read.range.start, read.range.end.min(content.len() as u64));
    while at < end {
        let len = digest::block_len(at, end);
        let start = usize::try_from(at).unwrap();
        let is_whole = at == 0 && len as u64 == read.identity.size;
        bytes.extend(block(read.binding, checksum, at, &content[start..start + len], is_whole));
        at += len as u64;
    }
    bytes
}

/// One block.
pub fn block(binding: Binding, checksum: Checksum, at: u64, data: &[u8], is_whole: bool) -> Vec<u8> {
    let (sealed, _) = checksum.seal(binding.of_block(at, data.len() as u64, false), at, data, is_whole);
    [&[Mark::Data as u8][..], data, &sealed[..checksum.digest_len()]].concat()
}

/// A hole of so many bytes.
pub fn hole(binding: Binding, checksum: Checksum, at: u64, len: u64) -> Vec<u8> {
    let (sealed, _) = checksum.seal(binding.of_block(at, len, true), at, &[], false);
    [&[Mark::Hole as u8][..], &len.to_be_bytes(), &sealed[..checksum.digest_len()]].concat()
}
