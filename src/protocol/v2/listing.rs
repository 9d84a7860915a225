//! Parts of lists: names of a folder, each with what it is.

use super::frame::{Fields, put_run, put_short, put_word};
use super::request::{
    decode_attributes, decode_identity, decode_target, decode_time, flags_of, put_attributes, put_identity, put_time,
};
use crate::entry::{Listed, ListedKind};
use crate::limits::{LIST_PAGE_MAX, NAME_LEN_MAX};
use crate::path::RemotePath;
use crate::protocol::{Error, Page};

const DIRECTORY: u8 = 0;
const SYMLINK: u8 = 1;
const FILE: u8 = 2;
const SPARSE_FILE: u8 = 3;
const SPECIAL: u8 = 4;

pub(super) fn decode_page(fields: &mut Fields<'_>) -> Result<Page, Error> {
    let is_last = fields.flag()?;
    let count = fields.count_up_to(LIST_PAGE_MAX, "number of names in a part of a list")?;
    let mut entries = Vec::with_capacity(count);
    for _ in 0..count {
        entries.push(decode_listed(fields)?);
    }
    Ok(Page { is_last, entries })
}

fn decode_listed(fields: &mut Fields<'_>) -> Result<Listed, Error> {
    let name: Box<[u8]> = fields.run_up_to(NAME_LEN_MAX, "length of a name")?.into();
    // What is no name may be a path, and lead elsewhere.
    if !name.is_empty() {
        RemotePath::parse(&name)?;
        if name.contains(&b'/') {
            return Err(Error::Malformed("name"));
        }
    }
    let (flags, code) = (fields.byte()?, fields.byte()?);
    let kind = match code {
        DIRECTORY => ListedKind::Directory { mtime: decode_time(fields)? },
        SYMLINK => {
            let mtime = decode_time(fields)?;
            ListedKind::Symlink { target: decode_target(fields)?, mtime }
        }
        FILE | SPARSE_FILE => {
            let identity = decode_identity(fields)?;
            ListedKind::File { identity, is_sparse: code == SPARSE_FILE, names: fields.word()? }
        }
        SPECIAL => ListedKind::Special { mtime: decode_time(fields)? },
        _ => return Err(Error::Malformed("kind of what is listed")),
    };
    Ok(Listed { name, kind, attributes: decode_attributes(fields, flags)? })
}

pub(super) fn put_page(body: &mut Vec<u8>, page: &Page) {
    body.push(page.is_last.into());
    put_short(body, page.entries.len());
    for entry in &page.entries {
        put_listed(body, entry);
    }
}

fn put_listed(body: &mut Vec<u8>, entry: &Listed) {
    put_run(body, &entry.name);
    body.push(flags_of(&entry.attributes));
    match &entry.kind {
        ListedKind::Directory { mtime } => {
            body.push(DIRECTORY);
            put_time(body, *mtime);
        }
        ListedKind::Symlink { target, mtime } => {
            body.push(SYMLINK);
            put_time(body, *mtime);
            put_run(body, target);
        }
        ListedKind::File { identity, is_sparse, names } => {
            body.push(if *is_sparse { SPARSE_FILE } else { FILE });
            put_identity(body, identity);
            put_word(body, *names);
        }
        ListedKind::Special { mtime } => {
            body.push(SPECIAL);
            put_time(body, *mtime);
        }
    }
    put_attributes(body, &entry.attributes);
}
