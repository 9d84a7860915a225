//! A receiver with accounts, and those who log in to it.

use super::link::Link;
use super::sender::*;
use super::*;

/// A receiver with accounts, and its folders.
pub struct Service {
    pub recv: Recv,
    pub host_key: String,
    pub root: TempDir,
    pub place: TempDir,
}

/// `recv user` on the accounts in a folder, with a password in the environment.
pub fn user(place: &Path, words: &[&str], password: &str) -> Command {
    let mut command = recv_command();
    command.arg("user").args(words).arg("--accounts").arg(place.join("accounts.db"));
    if !password.is_empty() {
        command.env("PTF_PASSWORD", password);
    }
    command
}

impl Service {
    /// One with alice, whose password is `pw of alice`, and bob likewise.
    pub fn start(flags: &[&str]) -> Self {
        let place = temp_dir();
        for name in ["alice", "bob"] {
            expect_code(&mut user(place.path(), &["add", name], &format!("pw of {name}")), 0);
        }
        Self::start_in(place, temp_dir(), flags)
    }

    /// One that goes on where another was.
    pub fn start_in(place: TempDir, root: TempDir, flags: &[&str]) -> Self {
        let mut command = recv_command();
        command.args(["--port", "0", "--state_dir"]).arg(place.path().join("state"));
        command.arg("--accounts").arg(place.path().join("accounts.db")).args(flags);
        let (recv, line) = recv_with_line(&mut command, root.path());
        let host_key = line.strip_prefix("host key ").unwrap().to_owned();
        Self { recv, host_key, root, place }
    }

    /// `recv user` while it runs; fails unless that ends well.
    pub fn user(&self, words: &[&str]) -> String {
        text(&expect_code(&mut user(self.place.path(), words, ""), 0).stdout)
    }

    /// A `send` of somebody with a password.
    pub fn send_as(&self, name: &str, password: &str, file: &Path, flags: &[&str]) -> Command {
        self.send_through(self.recv.port, name, password, file, flags)
    }

    /// The same through a relay.
    pub fn send_by(&self, link: &Link, name: &str, file: &Path, flags: &[&str]) -> Command {
        self.send_through(link.port, name, &format!("pw of {name}"), file, flags)
    }

    fn send_through(&self, port: u16, name: &str, password: &str, file: &Path, flags: &[&str]) -> Command {
        let mut command = send_to(port, file, "in", &["--user", name, "--host_key", &self.host_key]);
        command.args(flags).env("PTF_PASSWORD", password);
        command
    }

    /// The home of the account with this number: alice's is 1, bob's 2.
    pub fn home(&self, id: usize) -> PathBuf {
        self.root.path().join(id.to_string())
    }
}
