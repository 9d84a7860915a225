//! The receiver's host key: made once, kept in its state folder, told by its fingerprint.

use std::fs::{DirBuilder, File, OpenOptions, Permissions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use rcgen::{CertificateParams, DnType, ExtendedKeyUsagePurpose, KeyPair, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256};
use rustix::fs::OFlags;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use super::tls::{Fingerprint, Server};
use crate::limits::HOST_KEY_LEN_MAX;

/// The file's name in the state folder.
pub const HOST_KEY_FILE: &str = "host_key.pem";

/// A key and its certificate, ready for use.
#[derive(Debug, Clone)]
pub struct HostKey {
    fingerprint: Fingerprint,
    server: Server,
}

/// Why there is no host key.
#[derive(Debug, thiserror::Error)]
pub enum HostKeyError {
    /// The file is there and can't be read.
    #[error("can't read the host key {file:?}: {error}")]
    Unreadable {
        /// The file.
        file: PathBuf,
        /// What the system said.
        error: io::Error,
    },
    /// Others could have read it.
    #[error(
        "the host key {file:?} may be read or written by others (mode {mode:03o}); if nobody did so, chmod 600 it, otherwise remove it for a new one"
    )]
    Exposed {
        /// The file.
        file: PathBuf,
        /// Its mode.
        mode: u32,
    },
    /// It is something else, or damaged.
    #[error(
        "the host key {file:?} is of no use: {cause}; put back a copy of it, or remove it for a new one, which clients will take for a changed key"
    )]
    Damaged {
        /// The file.
        file: PathBuf,
        /// What is wrong.
        cause: String,
    },
    /// A new one could not be kept.
    #[error("can't keep a new host key in {file:?}: {error}; make the folder writable, or name another one")]
    Unwritable {
        /// The file.
        file: PathBuf,
        /// What the system said.
        error: io::Error,
    },
    /// A new one could not be made.
    #[error("can't make a host key: {0}")]
    Unmade(String),
}

impl HostKey {
    /// The key of this state folder. It is made if there is none; of several receivers that do so at
    /// once, all get the same.
    ///
    /// # Errors
    /// See [`HostKeyError`].
    pub fn load_or_make(state_folder: &Path) -> Result<Self, HostKeyError> {
        let file = state_folder.join(HOST_KEY_FILE);
        if let Some(key) = Self::load(&file)? {
            return Ok(key);
        }
        let (pem, _) = make()?;
        let unwritable = |error| HostKeyError::Unwritable { file: file.clone(), error };
        keep(state_folder, &file, &pem).map_err(unwritable)?;
        // Another receiver may have been faster: what is in the file counts.
        Self::load(&file)?.ok_or_else(|| unwritable(io::ErrorKind::NotFound.into()))
    }

    /// A key that is never kept.
    ///
    /// # Errors
    /// [`HostKeyError::Unmade`].
    pub fn for_one_job() -> Result<Self, HostKeyError> {
        let (_, key) = make()?;
        Ok(key)
    }

    /// What clients know it by.
    #[must_use]
    pub fn fingerprint(&self) -> Fingerprint {
        self.fingerprint
    }

    /// The side of TLS that has this key.
    #[must_use]
    pub fn server(&self) -> Server {
        self.server.clone()
    }

    fn load(file: &Path) -> Result<Option<Self>, HostKeyError> {
        let unreadable = |error| HostKeyError::Unreadable { file: file.to_owned(), error };
        let damaged = |cause: String| HostKeyError::Damaged { file: file.to_owned(), cause };
        let opened = match open(file) {
            Ok(opened) => opened,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(unreadable(error)),
        };
        let metadata = opened.metadata().map_err(unreadable)?;
        if !metadata.is_file() {
            return Err(damaged("it is not a regular file".to_owned()));
        }
        if metadata.mode() & 0o077 != 0 {
            return Err(HostKeyError::Exposed { file: file.to_owned(), mode: metadata.mode() & 0o777 });
        }
        let pem = read(&opened).map_err(unreadable)?;
        if pem.len() > HOST_KEY_LEN_MAX {
            return Err(damaged(format!("it is larger than {HOST_KEY_LEN_MAX} bytes")));
        }
        let key = PrivateKeyDer::from_pem_slice(&pem).map_err(|error| damaged(format!("no private key in it: {error}")))?;
        let certificate =
            CertificateDer::from_pem_slice(&pem).map_err(|error| damaged(format!("no certificate in it: {error}")))?;
        Self::new(certificate, key).map(Some).map_err(|error| damaged(error.to_string()))
    }

    fn new(certificate: CertificateDer<'static>, key: PrivateKeyDer<'static>) -> Result<Self, rustls::Error> {
        Ok(Self { fingerprint: Fingerprint::of(&certificate), server: Server::new(certificate, key)? })
    }
}

/// A new key, and the text it is kept as. ECDSA on P-256 rather than Ed25519: every implementation of
/// TLS 1.3 must have it (RFC 8446, 9.1), those without newer curves too.
fn make() -> Result<(String, HostKey), HostKeyError> {
    let unmade = |error: rcgen::Error| HostKeyError::Unmade(error.to_string());
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(unmade)?;
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, "parallel-transfer host key");
    // It is known by its fingerprint, which must stay: for ever, and for hosts with a wrong clock.
    params.not_before = rcgen::date_time_ymd(1970, 1, 1);
    params.not_after = rcgen::date_time_ymd(9999, 12, 31);
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    let certificate = params.self_signed(&key).map_err(unmade)?;
    let pem = key.serialize_pem() + &certificate.pem();
    let der = PrivateKeyDer::try_from(key.serialize_der()).map_err(|error| HostKeyError::Unmade(error.to_owned()))?;
    let host_key = HostKey::new(certificate.der().clone(), der).map_err(|error| HostKeyError::Unmade(error.to_string()))?;
    Ok((pem, host_key))
}

#[allow(clippy::disallowed_methods, reason = "the receiver's own key, not a file of a served tree")]
fn open(file: &Path) -> io::Result<File> {
    // Not to wait for someone at the other end of a FIFO.
    OpenOptions::new().read(true).custom_flags(OFlags::NONBLOCK.bits().cast_signed()).open(file)
}

#[allow(clippy::disallowed_methods, reason = "at most the largest file and one byte is read")]
fn read(opened: &File) -> io::Result<Vec<u8>> {
    let mut pem = Vec::new();
    opened.take(HOST_KEY_LEN_MAX as u64 + 1).read_to_end(&mut pem)?;
    Ok(pem)
}

/// Writes a new file, whole or not at all, unless there is one by now.
#[allow(clippy::disallowed_methods, reason = "a folder is opened to be flushed")]
fn keep(state_folder: &Path, file: &Path, pem: &str) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(state_folder)?;
    let mut temporary =
        tempfile::Builder::new().prefix(".host_key.").permissions(Permissions::from_mode(0o600)).tempfile_in(state_folder)?;
    temporary.write_all(pem.as_bytes())?;
    temporary.as_file().sync_all()?;
    match temporary.persist_noclobber(file) {
        Ok(_) => File::open(state_folder)?.sync_all(),
        Err(error) if error.error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(error.error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::{STALL_DEFAULT, TLS_HELLO_TIMEOUT};
    use crate::net::Listener;
    use crate::net::tls::TlsError;
    use crate::stop::Stop;
    use std::fs;
    use std::process::{Command, Stdio};
    use std::thread;
    use std::time::Instant;

    #[test]
    fn a_key_is_made_once_and_for_its_owner_alone() {
        let folder = tempfile::tempdir().unwrap();
        let state = folder.path().join("deep/state");
        let made = HostKey::load_or_make(&state).unwrap();
        assert_eq!(HostKey::load_or_make(&state).unwrap().fingerprint(), made.fingerprint());
        assert_ne!(HostKey::for_one_job().unwrap().fingerprint(), made.fingerprint());
        let mode = |path: &Path| fs::metadata(path).unwrap().mode() & 0o777;
        assert_eq!((mode(&state), mode(&state.join(HOST_KEY_FILE))), (0o700, 0o600));
        assert_eq!(fs::read_dir(&state).unwrap().count(), 1, "nothing else is left behind");
    }

    #[test]
    fn receivers_that_start_at_once_agree_on_one_key() {
        let folder = tempfile::tempdir().unwrap();
        let state = folder.path().join("state");
        let keys: Vec<Fingerprint> = thread::scope(|scope| {
            let all: Vec<_> = (0..8).map(|_| scope.spawn(|| HostKey::load_or_make(&state).unwrap().fingerprint())).collect();
            all.into_iter().map(|one| one.join().unwrap()).collect()
        });
        assert!(keys.iter().all(|key| *key == keys[0]));
        assert_eq!(fs::read_dir(&state).unwrap().count(), 1);
    }

    #[test]
    fn a_file_that_is_no_key_is_said_to_be_so_and_kept() {
        let folder = tempfile::tempdir().unwrap();
        HostKey::load_or_make(folder.path()).unwrap();
        let file = folder.path().join(HOST_KEY_FILE);
        let good = fs::read_to_string(&file).unwrap();
        let (key, certificate) = good.split_at(good.find("-----BEGIN CERT").unwrap());
        let (other, _) = make().unwrap();
        let (other_key, _) = other.split_at(other.find("-----BEGIN CERT").unwrap());
        let write = |text: &str, mode: u32| {
            fs::write(&file, text).unwrap();
            fs::set_permissions(&file, Permissions::from_mode(mode)).unwrap();
        };
        let large = good.clone() + &" ".repeat(HOST_KEY_LEN_MAX);
        let swapped = format!("{other_key}{certificate}");
        let cut = &good[..good.len() - 40];
        let flipped = certificate.replacen("MII", "AII", 1);
        for bad in ["", "\n", "not a key", key, certificate, cut, &swapped, &large, &format!("{key}{flipped}")] {
            write(bad, 0o600);
            let error = HostKey::load_or_make(folder.path()).unwrap_err();
            assert!(matches!(error, HostKeyError::Damaged { .. }), "{bad:?}: {error}");
            assert!(error.to_string().contains(HOST_KEY_FILE) && error.to_string().contains("remove it"));
            assert_eq!(fs::read_to_string(&file).unwrap(), bad);
        }
        for mode in [0o640, 0o604, 0o620, 0o777] {
            write(&good, mode);
            let error = HostKey::load_or_make(folder.path()).unwrap_err();
            assert!(error.to_string().contains("chmod 600"), "{error}");
        }
        write(&good, 0o400);
        HostKey::load_or_make(folder.path()).unwrap();
    }

    #[test]
    fn what_is_in_the_way_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join(HOST_KEY_FILE);
        fs::create_dir(&file).unwrap();
        assert!(HostKey::load_or_make(folder.path()).unwrap_err().to_string().contains("not a regular file"));
        fs::remove_dir(&file).unwrap();
        rustix::fs::mknodat(rustix::fs::CWD, &file, rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
        assert!(HostKey::load_or_make(folder.path()).unwrap_err().to_string().contains("not a regular file"));
        let below = HostKey::load_or_make(&file).unwrap_err();
        assert!(matches!(below, HostKeyError::Unreadable { .. }), "{below}");
        let nowhere = HostKey::load_or_make(Path::new("/proc/none")).unwrap_err();
        assert!(matches!(nowhere, HostKeyError::Unwritable { .. }), "{nowhere}");
    }

    /// Runs `openssl s_client` with `flag` against a new receiver: what it showed, and how it went.
    fn meet_openssl(key: &HostKey, flag: &str) -> Option<(Vec<u8>, Result<(), TlsError>)> {
        if Command::new("openssl").arg("version").stdout(Stdio::null()).status().is_err() {
            println!("SKIPPED, there is no openssl to judge by");
            return None;
        }
        let listener = Listener::bind(Some([127, 0, 0, 1].into()), 0, None).unwrap();
        let address = listener.address().unwrap().to_string();
        thread::scope(|scope| {
            let served = scope.spawn(|| {
                let (socket, _) = listener.accept(&Stop::new().unwrap()).unwrap().unwrap();
                let stream = listener.stream(socket, STALL_DEFAULT).unwrap();
                let mut stream = stream;
                stream.start_tls_server(&key.server(), &[], Instant::now() + TLS_HELLO_TIMEOUT)?;
                // It has no more to say than that it leaves.
                assert_eq!(stream.read(&mut [0; 9]).unwrap(), 0);
                Ok(())
            });
            let mut command = Command::new("openssl");
            command.args(["s_client", "-connect", &address, flag]).stdin(Stdio::null());
            Some((command.output().unwrap().stdout, served.join().unwrap()))
        })
    }

    #[test]
    fn openssl_sees_the_same_fingerprint() {
        let key = HostKey::for_one_job().unwrap();
        let Some((shown, served)) = meet_openssl(&key, "-tls1_3") else { return };
        served.unwrap();
        let mut command = Command::new("openssl");
        command.args(["x509", "-noout", "-fingerprint", "-sha256"]).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        child.stdin.take().unwrap().write_all(&shown).unwrap();
        let text = String::from_utf8(child.wait_with_output().unwrap().stdout).unwrap();
        let (_, fingerprint) = text.trim().split_once('=').unwrap();
        assert_eq!(fingerprint.parse(), Ok(key.fingerprint()));
    }

    #[test]
    fn openssl_is_refused_without_tls_1_3() {
        let key = HostKey::for_one_job().unwrap();
        let Some((_, served)) = meet_openssl(&key, "-tls1_2") else { return };
        let error = served.unwrap_err();
        assert!(matches!(error, TlsError::Failed(rustls::Error::PeerIncompatible(_))), "{error}");
    }
}
