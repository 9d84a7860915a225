//! What a client asks for.

use std::ops::Range;

use super::frame::{self, Fields, put_long, put_run, put_short, put_word};
use crate::compress::Level;
use crate::digest::{Binding, Checksum};
use crate::entry::{Attributes, Entry, FileMeta, Identity, Kind, Time};
use crate::limits::{
    HAVE_BATCH_MAX, PASSWORD_LEN_MAX, PATH_LEN_MAX, RELAY_NAME_LEN_MAX, USER_LEN_MAX, WIRE_NAME_LEN_MAX, XATTRS_LEN_MAX,
    XATTRS_NUM_MAX,
};
use crate::path::RemotePath;
use crate::protocol::{
    Algorithm, Credential, Decoded, Error, Features, Known, List, Open, Purpose, Put, Read, Request, Secret, Token,
};

const HELLO: u8 = 1;
const OPEN: u8 = 2;
const JOIN: u8 = 3;
const PUT: u8 = 4;
const HAVE: u8 = 5;
const DESCRIBE: u8 = 6;
const FINISH: u8 = 7;
const VERIFY: u8 = 8;
const SIGN_UP: u8 = 9;
const READ: u8 = 0x0a;
const LIST: u8 = 0x0b;
const REMOVE: u8 = 0x0c;
const RENAME: u8 = 0x0d;
const MAKE_DIRECTORY: u8 = 0x0e;
const SUM: u8 = 0x0f;
const SPACE: u8 = 0x10;
const CHANGE_PASSWORD: u8 = 0x11;
const RELAY: u8 = 0x12;

const IS_SPARSE: u8 = 1;
const HAS_OWNER: u8 = 2;
const HAS_XATTRS: u8 = 4;

const KEEP_OLD: u16 = 1;
const SYNC: u16 = 2;
const DRY: u16 = 4;
const BROWSE: u16 = 8;
const PASS_ON: u16 = 16;

/// Where the level of compression stands among them, and the bits of it.
const LEVEL: (u32, u16) = (8, 0x1f);

const ITSELF: u8 = 1;

/// Is the request at the start of `bytes` here, ready to be decoded?
///
/// # Errors
/// As soon as its head can't be that of a request.
pub fn is_here(bytes: &[u8]) -> Result<bool, Error> {
    frame::is_whole(bytes)
}

/// Decodes the request at the start of `bytes`; of a put, all but the payload.
///
/// # Errors
/// As soon as the bytes at hand can't become a request.
pub fn decode(bytes: &[u8]) -> Decoded<Request<'_>> {
    let Some((frame, len)) = frame::decode(bytes)? else { return Ok(None) };
    let mut fields = Fields(frame.body);
    let request = match frame.kind {
        HELLO => Request::Hello { versions: fields.byte()?..=fields.byte()?, features: Features(fields.long()?) },
        OPEN => Request::Open(decode_open(&mut fields)?),
        SIGN_UP => Request::SignUp { user: decode_user(&mut fields)?, password: decode_password(&mut fields)? },
        JOIN => Request::Join(Token(fields.array()?)),
        PUT => {
            let mut put = decode_put(&mut fields)?;
            put.binding = Binding::of(frame.body);
            Request::Put(put)
        }
        HAVE => Request::Have(decode_have(&mut fields)?),
        VERIFY => Request::Verify(decode_known(&mut fields)?, fields.array()?),
        DESCRIBE => Request::Describe(decode_entry(&mut fields)?),
        FINISH => Request::Finish,
        READ => {
            let mut read = decode_read(&mut fields)?;
            read.binding = Binding::of(frame.body);
            Request::Read(read)
        }
        LIST => Request::List(decode_list(&mut fields)?),
        REMOVE => Request::Remove { path: decode_path(&mut fields)?, is_recursive: fields.flag()? },
        RENAME => Request::Rename { from: decode_path(&mut fields)?, to: decode_path(&mut fields)? },
        MAKE_DIRECTORY => Request::MakeDirectory { path: decode_path(&mut fields)?, with_parents: fields.flag()? },
        SUM => Request::Sum {
            path: decode_path_or_root(&mut fields)?,
            algorithm: Algorithm::from_code(fields.byte()?).ok_or(Error::Malformed("algorithm"))?,
        },
        SPACE => Request::Space,
        RELAY => Request::Relay { to: decode_relay_name(&mut fields)? },
        CHANGE_PASSWORD => Request::ChangePassword { old: decode_password(&mut fields)?, new: decode_password(&mut fields)? },
        kind => return Err(Error::UnknownOperation(vec![kind])),
    };
    fields.end()?;
    Ok(Some((request, len)))
}

fn decode_open(fields: &mut Fields<'_>) -> Result<Open, Error> {
    let token = Token(fields.array()?);
    let flags = fields.short()?;
    let checksum = Checksum::from_code(fields.byte()?).ok_or(Error::Malformed("checksum"))?;
    let directory = fields.run_up_to(WIRE_NAME_LEN_MAX, "length of a folder's name")?.to_vec();
    let credential = match fields.byte()? {
        0 => Credential::None,
        1 => Credential::Ticket(Token(fields.array()?)),
        2 => Credential::Password { user: decode_user(fields)?, password: decode_password(fields)? },
        3 => Credential::Key { user: decode_user(fields)?, public: fields.array()?, signature: fields.array()? },
        _ => return Err(Error::Malformed("credential")),
    };
    let has = |flag| flags & flag != 0;
    let purpose = match (has(BROWSE), has(PASS_ON)) {
        (false, false) => Purpose::Bring,
        (true, false) => Purpose::Browse,
        (false, true) => Purpose::Relay,
        (true, true) => return Err(Error::Malformed("purpose of a session")),
    };
    Ok(Open {
        token,
        keeps_old: has(KEEP_OLD),
        syncs: has(SYNC),
        is_dry: has(DRY),
        purpose,
        compression: u8::try_from(flags >> LEVEL.0 & LEVEL.1).ok().and_then(Level::of),
        checksum,
        directory,
        credential,
    })
}

fn decode_user(fields: &mut Fields<'_>) -> Result<Vec<u8>, Error> {
    Ok(fields.run_up_to(USER_LEN_MAX, "length of a user's name")?.to_vec())
}

fn decode_password(fields: &mut Fields<'_>) -> Result<Secret, Error> {
    Ok(Secret::from(fields.run_up_to(PASSWORD_LEN_MAX, "length of a password")?.to_vec()))
}

/// The name of a receiver to be passed on to.
fn decode_relay_name(fields: &mut Fields<'_>) -> Result<String, Error> {
    let name = fields.run_up_to(RELAY_NAME_LEN_MAX, "length of a receiver's name")?;
    let name = str::from_utf8(name).map_err(|_| Error::Malformed("name of a receiver"))?;
    let is_printable = !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_graphic());
    if is_printable { Ok(name.to_owned()) } else { Err(Error::Malformed("name of a receiver")) }
}

fn decode_path(fields: &mut Fields<'_>) -> Result<RemotePath, Error> {
    Ok(RemotePath::parse(fields.run()?)?)
}

/// An empty one is the folder that the session opened.
fn decode_path_or_root(fields: &mut Fields<'_>) -> Result<RemotePath, Error> {
    match fields.run()? {
        [] => Ok(RemotePath::root()),
        path => Ok(RemotePath::parse(path)?),
    }
}

pub(super) fn decode_time(fields: &mut Fields<'_>) -> Result<Time, Error> {
    let time = (fields.long()?.cast_signed(), fields.word()?);
    if time.1 >= 1_000_000_000 { Err(Error::Malformed("time")) } else { Ok(time) }
}

/// Flags come first: they say which attributes there are.
pub(super) fn decode_attributes(fields: &mut Fields<'_>, flags: u8) -> Result<Attributes, Error> {
    let mode = fields.short()? & 0o777;
    let owner = if flags & HAS_OWNER == 0 { None } else { Some((fields.word()?, fields.word()?)) };
    let mut xattrs = Vec::new();
    if flags & HAS_XATTRS != 0 {
        let count = fields.count_up_to(XATTRS_NUM_MAX, "number of extended attributes")?;
        for _ in 0..count {
            xattrs.push((fields.run()?.into(), fields.run_up_to(XATTRS_LEN_MAX, "length of an extended attribute")?.into()));
        }
    }
    Ok(Attributes { mode, owner, xattrs })
}

pub(super) fn decode_put(fields: &mut Fields<'_>) -> Result<Put, Error> {
    let flags = fields.byte()?;
    let identity = decode_identity(fields)?;
    let range = decode_range(fields, identity.size)?;
    let path = decode_path(fields)?;
    let attributes = decode_attributes(fields, flags)?;
    let file = FileMeta { identity, attributes, is_sparse: flags & IS_SPARSE != 0 };
    Ok(Put { path, file, range, binding: Binding::default() })
}

fn decode_have(fields: &mut Fields<'_>) -> Result<Vec<Known>, Error> {
    let count = fields.count_up_to(HAVE_BATCH_MAX, "number of files in a batch")?;
    let mut batch = Vec::with_capacity(count);
    for _ in 0..count {
        batch.push(decode_known(fields)?);
    }
    Ok(batch)
}

fn decode_known(fields: &mut Fields<'_>) -> Result<Known, Error> {
    let flags = fields.byte()?;
    let (size, mtime) = (fields.long()?, decode_time(fields)?);
    let path = decode_path(fields)?;
    Ok(Known { path, size, mtime, attributes: decode_attributes(fields, flags)? })
}

fn decode_entry(fields: &mut Fields<'_>) -> Result<Entry, Error> {
    let flags = fields.byte()?;
    let path = decode_path_or_root(fields)?;
    let kind = match fields.byte()? {
        0 => Kind::Directory { mtime: decode_time(fields)? },
        1 => {
            let mtime = decode_time(fields)?;
            Kind::Symlink { target: decode_target(fields)?, mtime }
        }
        2 => Kind::HardLink { to: decode_path(fields)? },
        _ => return Err(Error::Malformed("kind of an entry")),
    };
    if path.is_root() && !matches!(kind, Kind::Directory { .. }) {
        return Err(Error::Malformed("path"));
    }
    Ok(Entry { path, kind, attributes: decode_attributes(fields, flags)? })
}

/// The target of a symbolic link.
pub(super) fn decode_target(fields: &mut Fields<'_>) -> Result<Box<[u8]>, Error> {
    let target = fields.run_up_to(PATH_LEN_MAX, "length of a link's target")?;
    if target.is_empty() || target.contains(&0) {
        return Err(Error::Malformed("target of a symbolic link"));
    }
    Ok(target.into())
}

fn decode_read(fields: &mut Fields<'_>) -> Result<Read, Error> {
    let is_sparse = fields.flag()?;
    let identity = decode_identity(fields)?;
    let range = decode_range(fields, identity.size)?;
    Ok(Read { path: decode_path_or_root(fields)?, identity, is_sparse, range, binding: Binding::default() })
}

fn decode_list(fields: &mut Fields<'_>) -> Result<List, Error> {
    let flags = fields.byte()?;
    let has = |flag| flags & flag != 0;
    Ok(List { path: decode_path_or_root(fields)?, itself: has(ITSELF), owner: has(HAS_OWNER), xattrs: has(HAS_XATTRS) })
}

/// Size, time and tag of a file.
pub(super) fn decode_identity(fields: &mut Fields<'_>) -> Result<Identity, Error> {
    Ok(Identity { size: fields.long()?, mtime: decode_time(fields)?, tag: fields.array()? })
}

fn decode_range(fields: &mut Fields<'_>, size: u64) -> Result<Range<u64>, Error> {
    let range = fields.long()?..fields.long()?;
    if range.start > range.end || range.end > size { Err(Error::Malformed("range")) } else { Ok(range) }
}

/// Adds a hello of one who speaks these versions.
pub fn encode_hello(bytes: &mut Vec<u8>, versions: std::ops::RangeInclusive<u8>, features: Features) {
    frame::encode(bytes, HELLO, |body| {
        body.extend_from_slice(&[*versions.start(), *versions.end()]);
        put_long(body, features.0);
    });
}

/// Adds the opening of a session.
pub fn encode_open(bytes: &mut Vec<u8>, open: &Open) {
    frame::encode(bytes, OPEN, |body| {
        body.extend_from_slice(&open.token.0);
        let purpose = match open.purpose {
            Purpose::Bring => 0,
            Purpose::Browse => BROWSE,
            Purpose::Relay => PASS_ON,
        };
        let flags = [(open.keeps_old, KEEP_OLD), (open.syncs, SYNC), (open.is_dry, DRY)];
        let flags = flags.iter().filter(|(is_set, _)| *is_set).fold(purpose, |all, (_, flag)| all | flag);
        let level = u16::from(Level::number(open.compression)) << LEVEL.0;
        put_short(body, usize::from(flags | level));
        body.push(open.checksum.code());
        put_run(body, &open.directory);
        match &open.credential {
            Credential::None => body.push(0),
            Credential::Ticket(secret) => {
                body.push(1);
                body.extend_from_slice(&secret.0);
            }
            Credential::Password { user, password } => {
                body.push(2);
                put_run(body, user);
                put_run(body, password.as_bytes());
            }
            Credential::Key { user, public, signature } => {
                body.push(3);
                put_run(body, user);
                body.extend_from_slice(public);
                body.extend_from_slice(signature);
            }
        }
    });
}

/// Adds the request to make an account.
pub fn encode_sign_up(bytes: &mut Vec<u8>, user: &[u8], password: &Secret) {
    frame::encode(bytes, SIGN_UP, |body| {
        put_run(body, user);
        put_run(body, password.as_bytes());
    });
}

/// Adds the request to pass a connection on.
pub fn encode_relay(bytes: &mut Vec<u8>, to: &str) {
    frame::encode(bytes, RELAY, |body| put_run(body, to.as_bytes()));
}

/// Adds the joining of a session by one more connection.
pub fn encode_join(bytes: &mut Vec<u8>, token: &Token) {
    frame::encode(bytes, JOIN, |body| body.extend_from_slice(&token.0));
}

/// Adds the header of a put; gives what its payload's digests are bound to.
pub fn encode_put(bytes: &mut Vec<u8>, path: &RemotePath, file: &FileMeta, range: &Range<u64>) -> Binding {
    frame::encode(bytes, PUT, |body| put_put(body, path, file, range))
}

pub(super) fn put_put(body: &mut Vec<u8>, path: &RemotePath, file: &FileMeta, range: &Range<u64>) {
    body.push(flags_of(&file.attributes) | if file.is_sparse { IS_SPARSE } else { 0 });
    put_identity(body, &file.identity);
    put_long(body, range.start);
    put_long(body, range.end);
    put_run(body, path.as_bytes());
    put_attributes(body, &file.attributes);
}

/// Adds the question which of these files are there already.
pub fn encode_have<'a>(bytes: &mut Vec<u8>, batch: impl ExactSizeIterator<Item = (&'a RemotePath, &'a FileMeta)>) {
    frame::encode(bytes, HAVE, |body| {
        put_short(body, batch.len());
        for (path, file) in batch {
            put_known(body, path, file);
        }
    });
}

fn put_known(body: &mut Vec<u8>, path: &RemotePath, file: &FileMeta) {
    body.push(flags_of(&file.attributes));
    put_long(body, file.identity.size);
    put_time(body, file.identity.mtime);
    put_run(body, path.as_bytes());
    put_attributes(body, &file.attributes);
}

/// Adds the question whether a file has this digest.
pub fn encode_verify(bytes: &mut Vec<u8>, path: &RemotePath, file: &FileMeta, digest: &[u8; 32]) {
    frame::encode(bytes, VERIFY, |body| {
        put_known(body, path, file);
        body.extend_from_slice(digest);
    });
}

/// Adds the description of a folder or a link.
///
/// # Panics
/// In builds with assertions: files are not described, they are put.
pub fn encode_describe(bytes: &mut Vec<u8>, entry: &Entry) {
    frame::encode(bytes, DESCRIBE, |body| {
        body.push(flags_of(&entry.attributes));
        put_run(body, entry.path.as_bytes());
        match &entry.kind {
            Kind::Directory { mtime } => {
                body.push(0);
                put_time(body, *mtime);
            }
            Kind::Symlink { target, mtime } => {
                body.push(1);
                put_time(body, *mtime);
                put_run(body, target);
            }
            Kind::HardLink { to } => {
                body.push(2);
                put_run(body, to.as_bytes());
            }
            Kind::File { .. } => debug_assert!(false, "a file is put, not described"),
        }
        put_attributes(body, &entry.attributes);
    });
}

/// Adds the request to end the session.
pub fn encode_finish(bytes: &mut Vec<u8>) {
    frame::encode(bytes, FINISH, |_| ());
}

/// Adds the header of a read; gives what the payload's digests will be bound to.
pub fn encode_read(bytes: &mut Vec<u8>, path: &RemotePath, identity: &Identity, is_sparse: bool, range: &Range<u64>) -> Binding {
    frame::encode(bytes, READ, |body| {
        body.push(is_sparse.into());
        put_identity(body, identity);
        put_long(body, range.start);
        put_long(body, range.end);
        put_run(body, path.as_bytes());
    })
}

/// Adds the question what is in a folder, or what something is.
pub fn encode_list(bytes: &mut Vec<u8>, list: &List) {
    frame::encode(bytes, LIST, |body| {
        let flags = [(list.itself, ITSELF), (list.owner, HAS_OWNER), (list.xattrs, HAS_XATTRS)];
        body.push(flags.iter().map(|&(is_set, flag)| if is_set { flag } else { 0 }).sum());
        put_run(body, list.path.as_bytes());
    });
}

/// Adds the request to remove something.
pub fn encode_remove(bytes: &mut Vec<u8>, path: &RemotePath, is_recursive: bool) {
    frame::encode(bytes, REMOVE, |body| {
        put_run(body, path.as_bytes());
        body.push(is_recursive.into());
    });
}

/// Adds the request to give something another name.
pub fn encode_rename(bytes: &mut Vec<u8>, from: &RemotePath, to: &RemotePath) {
    frame::encode(bytes, RENAME, |body| {
        put_run(body, from.as_bytes());
        put_run(body, to.as_bytes());
    });
}

/// Adds the request to make a folder.
pub fn encode_make_directory(bytes: &mut Vec<u8>, path: &RemotePath, with_parents: bool) {
    frame::encode(bytes, MAKE_DIRECTORY, |body| {
        put_run(body, path.as_bytes());
        body.push(with_parents.into());
    });
}

/// Adds the request to sum up a file.
pub fn encode_sum(bytes: &mut Vec<u8>, path: &RemotePath, algorithm: Algorithm) {
    frame::encode(bytes, SUM, |body| {
        put_run(body, path.as_bytes());
        body.push(algorithm as u8);
    });
}

/// Adds the question how much room there is.
pub fn encode_space(bytes: &mut Vec<u8>) {
    frame::encode(bytes, SPACE, |_| ());
}

/// Adds the request to change the password.
pub fn encode_change_password(bytes: &mut Vec<u8>, old: &Secret, new: &Secret) {
    frame::encode(bytes, CHANGE_PASSWORD, |body| {
        put_run(body, old.as_bytes());
        put_run(body, new.as_bytes());
    });
}

pub(super) fn flags_of(attributes: &Attributes) -> u8 {
    let owner = if attributes.owner.is_some() { HAS_OWNER } else { 0 };
    owner | if attributes.xattrs.is_empty() { 0 } else { HAS_XATTRS }
}

pub(super) fn put_identity(body: &mut Vec<u8>, identity: &Identity) {
    put_long(body, identity.size);
    put_time(body, identity.mtime);
    body.extend_from_slice(&identity.tag);
}

pub(super) fn put_time(body: &mut Vec<u8>, time: Time) {
    put_long(body, time.0.cast_unsigned());
    put_word(body, time.1);
}

pub(super) fn put_attributes(body: &mut Vec<u8>, attributes: &Attributes) {
    put_short(body, usize::from(attributes.mode));
    if let Some((user, group)) = attributes.owner {
        put_word(body, user);
        put_word(body, group);
    }
    if !attributes.xattrs.is_empty() {
        put_short(body, attributes.xattrs.len());
        for (name, value) in &attributes.xattrs {
            put_run(body, name);
            put_run(body, value);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_over_limit(bytes: &[u8]) -> bool {
        matches!(decode(bytes), Err(Error::OverLimit { .. }))
    }

    // B02, B15, B16
    #[test]
    fn a_name_and_a_password_may_be_as_long_as_they_may_be_and_no_longer() {
        for (user_len, password_len) in [(0, 0), (USER_LEN_MAX, PASSWORD_LEN_MAX)] {
            let (user, password) = (vec![b'a'; user_len], Secret::from(vec![0; password_len]));
            let mut bytes = Vec::new();
            encode_sign_up(&mut bytes, &user, &password);
            assert_eq!(decode(&bytes), Ok(Some((Request::SignUp { user, password }, bytes.len()))));
        }
        for (user_len, password_len) in [(USER_LEN_MAX + 1, 0), (0, PASSWORD_LEN_MAX + 1), (60_000, 0)] {
            let (user, password) = (vec![b'a'; user_len], Secret::from(vec![0; password_len]));
            let mut bytes = Vec::new();
            encode_sign_up(&mut bytes, &user, &password);
            assert!(is_over_limit(&bytes));
            bytes.clear();
            let open =
                Open { credential: Credential::Password { user, password }, ..Open::plain(Token([0; 32]), Purpose::Bring) };
            encode_open(&mut bytes, &open);
            assert!(is_over_limit(&bytes));
        }
    }
}
