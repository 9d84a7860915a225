//! Where something lands on this machine.

use std::fs::DirBuilder;
use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Component, Path, PathBuf};

use parallel_transfer::store::Umask;

/// What is there of the path to `target`, and what is to be made below it. A path that leads through
/// what is missing and up again is made here, unless nothing is to be changed.
pub(crate) fn split(target: &Path, umask: Umask, is_dry: bool) -> io::Result<(PathBuf, PathBuf)> {
    let absolute = std::path::absolute(target)?;
    let there = absolute.ancestors().find(|path| path.is_dir()).unwrap_or_else(|| Path::new("/"));
    let missing = absolute.strip_prefix(there).unwrap_or_else(|_| Path::new(""));
    if missing.as_os_str().is_empty() {
        // From the folder above, so that its own attributes can be kept as those of any folder.
        let real = there.canonicalize()?;
        return Ok(match (real.parent(), real.file_name()) {
            (Some(above), Some(name)) if above.read_dir().is_ok() => (above.to_owned(), PathBuf::from(name)),
            _ => (real, PathBuf::new()),
        });
    }
    if is_dry || missing.components().all(|name| matches!(name, Component::Normal(_))) {
        return Ok((there.to_owned(), missing.to_owned()));
    }
    DirBuilder::new().recursive(true).mode(umask.of(0o777)).create(target)?;
    Ok((target.to_owned(), PathBuf::new()))
}
