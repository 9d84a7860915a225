//! A `recv` that pulls.

use super::*;

/// `recv` that fetches `remote` from a port of 127.0.0.1 into a folder.
pub fn fetch_from(port: u16, remote: impl AsRef<OsStr>, local_dir: &Path, flags: &[&str]) -> Command {
    let mut command = recv_command();
    command.args(["--server", "127.0.0.1", "--port", &port.to_string(), "--file"]).arg(remote.as_ref());
    command.arg("--local_dir").arg(local_dir).args(flags).stdin(Stdio::null());
    command
}
