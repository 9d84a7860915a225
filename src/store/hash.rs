//! The BLAKE3 digest of a whole file that is not on its way, of this side or the other.

use std::fs::File;
use std::io::{self, Read as _};

use crate::limits::BUFFER_LEN;

/// Reads `file` from where it is to its end. `going` is called now and then; what it says ends that.
///
/// # Errors
/// It can't be read; that of `going`.
pub fn hash_file(mut file: &File, going: &mut dyn FnMut() -> io::Result<()>) -> io::Result<[u8; 32]> {
    let (mut hasher, mut buffer) = (blake3::Hasher::new(), vec![0; BUFFER_LEN]);
    loop {
        match file.read(&mut buffer) {
            Ok(0) => return Ok(*hasher.finalize().as_bytes()),
            Ok(len) => _ = hasher.update(buffer.get(..len).unwrap_or_default()),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
        going()?;
    }
}
