//! What a user logs in with: a password or a key, never out of an argument.

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use parallel_transfer::limits::LOGIN_KEY_LEN_MAX;
use parallel_transfer::login_key::PrivateKey;
use parallel_transfer::path::Escaped;
use parallel_transfer::secret::{PASSWORD_VARIABLE, PasswordSource, Secret, read_private};
use parallel_transfer::terminal;

use super::folders::config_folder;

/// The key's usual name, in this program's folder of configuration.
const KEY_FILE: &str = "id_ed25519";

/// The password of `user` at `server`: from the first line of a file (`-` for standard input), else from the
/// environment's `PTF_PASSWORD`, else from the terminal.
///
/// # Errors
/// None of them has one, or it is no password.
pub(crate) fn password(user: &str, server: &str, password_file: Option<&Path>) -> anyhow::Result<Secret> {
    let variable = std::env::var_os(PASSWORD_VARIABLE).map(Secret::of);
    let source = PasswordSource { file: password_file, variable };
    Ok(source.password(|| terminal::ask_secret(&format!("Password for {user} at {server}: ")))?)
}

/// The key in a file that nobody else may read.
///
/// # Errors
/// There is none, or others may read it.
pub(crate) fn load_key(file: &Path) -> anyhow::Result<PrivateKey> {
    let shown = Escaped::path(file);
    let pem = read_private(file, LOGIN_KEY_LEN_MAX).with_context(|| format!("can't use the key '{shown}'"))?;
    PrivateKey::from_pem(pem.as_bytes()).with_context(|| format!("can't use the key '{shown}'"))
}

/// Where a user's key is unless another file is named.
///
/// # Errors
/// There is no home.
pub(crate) fn default_key() -> anyhow::Result<PathBuf> {
    Ok(config_folder().context("no place for a key: HOME is not set; name a file for it")?.join(KEY_FILE))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::{self, Permissions};
    use std::os::unix::fs::PermissionsExt as _;

    #[test]
    fn a_key_is_loaded_if_nobody_else_may_read_it() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("key");
        let (key, pem) = PrivateKey::make().unwrap();
        fs::write(&file, &pem).unwrap();
        fs::set_permissions(&file, Permissions::from_mode(0o600)).unwrap();
        assert_eq!(load_key(&file).unwrap().public(), key.public());
        for (bytes, mode, why) in [
            (pem.as_bytes(), 0o640, "chmod 600"),
            (pem.as_bytes(), 0o604, "chmod 600"),
            (b"", 0o600, "send key"),
            (b"-----BEGIN OPENSSH PRIVATE KEY-----\nb3Bl\n-----END OPENSSH PRIVATE KEY-----\n", 0o600, "send key"),
            (&[b'x'; LOGIN_KEY_LEN_MAX + 1], 0o600, "larger"),
        ] {
            fs::write(&file, bytes).unwrap();
            fs::set_permissions(&file, Permissions::from_mode(mode)).unwrap();
            let error = format!("{:#}", load_key(&file).unwrap_err());
            assert!(error.contains(why) && error.contains(file.to_str().unwrap()), "{error}");
        }
        assert!(load_key(folder.path()).is_err() && load_key(&folder.path().join("none")).is_err());
    }

    #[test]
    fn a_password_comes_from_the_file_that_is_named() {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), "secret\nnot this").unwrap();
        assert_eq!(password("alice", "host", Some(file.path())).unwrap().as_bytes(), b"secret");
    }
}
