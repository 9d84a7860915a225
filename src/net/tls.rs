//! Whom to trust, and with which ciphers: the two ends of TLS 1.3. Its bytes are `sealed.rs`'s.

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use rustls::client::Resumption;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, SupportedKxGroup, aws_lc_rs};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::NoServerSessionStorage;
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, OtherError, ServerConfig, SignatureScheme, version};

use super::known_hosts::{self, KnownHostsError, Verdict};

/// What a host key is told by: the SHA-256 of its certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Fingerprint([u8; 32]);

impl Fingerprint {
    /// That of a certificate in DER.
    #[must_use]
    pub fn of(certificate: &[u8]) -> Self {
        let mut bytes = [0; 32];
        bytes.copy_from_slice(::aws_lc_rs::digest::digest(&::aws_lc_rs::digest::SHA256, certificate).as_ref());
        Self(bytes)
    }

    /// The one with these bytes.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// Its bytes.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SHA256:{}", STANDARD_NO_PAD.encode(self.0))
    }
}

/// A text that is no fingerprint.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a fingerprint: those are SHA256: and 43 letters and digits, or 64 hexadecimal digits with or without colons")]
pub struct FingerprintError;

impl FromStr for Fingerprint {
    type Err = FingerprintError;

    /// Takes what [`fmt::Display`] shows, and what `openssl x509 -fingerprint -sha256` does.
    fn from_str(text: &str) -> Result<Self, FingerprintError> {
        if let Some(base64) = text.strip_prefix("SHA256:") {
            let bytes = STANDARD_NO_PAD.decode(base64).ok().and_then(|bytes| bytes.try_into().ok());
            return bytes.map(Self).ok_or(FingerprintError);
        }
        let text = text.as_bytes();
        let step = match text.len() {
            64 => 2,
            95 if text.iter().skip(2).step_by(3).all(|byte| *byte == b':') => 3,
            _ => return Err(FingerprintError),
        };
        let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
        let mut bytes = [0; 32];
        for (byte, digits) in bytes.iter_mut().zip(text.chunks(step)) {
            let (Some(high), Some(low)) = (digit(digits[0]), digit(digits[1])) else { return Err(FingerprintError) };
            *byte = high << 4 | low;
        }
        Ok(Self(bytes))
    }
}

/// Why a receiver's key was not trusted. Nothing was sent to it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// It is not the one that was asked for.
    #[error(
        "the receiver's host key is {found}, not {expected} as expected; nothing was sent: \
         compare with the fingerprint that the receiver prints when it starts"
    )]
    Pinned {
        /// The one asked for.
        expected: Fingerprint,
        /// The receiver's.
        found: Fingerprint,
    },
    /// It is not the one that was known.
    #[error(
        "the host key of {} has CHANGED: it was {known} ({file:?}, line {line}) and is now {found}; nothing was sent. \
         Someone may be in between, or the receiver was set up anew: \
         if whoever runs it confirms the new fingerprint, remove that line", host.escape_debug()
    )]
    Changed {
        /// The host as the user named it, and the port.
        host: String,
        /// The key it had.
        known: Fingerprint,
        /// The key it has.
        found: Fingerprint,
        /// The file that knows it.
        file: PathBuf,
        /// And the line.
        line: usize,
    },
    /// It was never seen, and only known ones were asked for.
    #[error(
        "the host key of {} is not known: {found}; if that is what the receiver prints when it starts, \
         name it with --host_key {found} or accept it once by leaving out --strict", host.escape_debug()
    )]
    Unknown {
        /// The host as the user named it, and the port.
        host: String,
        /// Its key.
        found: Fingerprint,
    },
    /// Nobody can say whether it is known.
    #[error(transparent)]
    KnownHosts(#[from] KnownHostsError),
}

/// Why a stream could not be encrypted.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// The peer's key is not trusted.
    #[error(transparent)]
    Refused(Box<Refusal>),
    /// The peer does not speak TLS at all: it was silent, closed, or sent something else.
    #[error("no TLS: {0}")]
    Foreign(&'static str),
    /// The peer speaks TLS, but not as it must: an older version, a malformed message, or an alert.
    #[error("TLS failed: {0}")]
    Failed(rustls::Error),
    /// The peer was too slow.
    #[error("the TLS handshake took too long")]
    Late,
    /// The stream broke.
    #[error("the stream broke in the TLS handshake: {0}")]
    Broken(io::Error),
}

impl From<Refusal> for TlsError {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(Box::new(refusal))
    }
}

impl From<rustls::Error> for TlsError {
    fn from(error: rustls::Error) -> Self {
        match &error {
            rustls::Error::InvalidCertificate(CertificateError::Other(OtherError(reason))) => {
                reason.downcast_ref::<Refusal>().cloned().map_or(Self::Failed(error), Self::from)
            }
            rustls::Error::InvalidMessage(_) => Self::Foreign("the peer sent something else"),
            _ => Self::Failed(error),
        }
    }
}

/// Ciphers and key exchanges, best first. AES-GCM is several times faster than ChaCha20 where the
/// processor has instructions for it, and several times slower where it has none.
fn provider() -> CryptoProvider {
    use aws_lc_rs::cipher_suite::{TLS13_AES_128_GCM_SHA256, TLS13_AES_256_GCM_SHA384, TLS13_CHACHA20_POLY1305_SHA256};
    let mut cipher_suites = vec![TLS13_AES_128_GCM_SHA256, TLS13_AES_256_GCM_SHA384];
    cipher_suites.insert(if has_aes() { 2 } else { 0 }, TLS13_CHACHA20_POLY1305_SHA256);
    let kx_groups: Vec<&'static dyn SupportedKxGroup> = aws_lc_rs::default_provider().kx_groups;
    CryptoProvider { cipher_suites, kx_groups, ..aws_lc_rs::default_provider() }
}

/// Does the processor have instructions for AES-GCM?
fn has_aes() -> bool {
    #[cfg(target_arch = "x86_64")]
    let has = std::arch::is_x86_feature_detected!("aes") && std::arch::is_x86_feature_detected!("pclmulqdq");
    #[cfg(target_arch = "aarch64")]
    let has = std::arch::is_aarch64_feature_detected!("aes") && std::arch::is_aarch64_feature_detected!("pmull");
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    let has = false;
    has
}

/// The side that has a host key. Clones share it.
#[derive(Debug, Clone)]
pub struct Server {
    pub(super) config: Arc<ServerConfig>,
    fingerprint: Fingerprint,
}

impl Server {
    /// One that shows `certificate` and has its key. No session tickets and no data before the
    /// handshake's end: a connection lives as long as its job, and nothing may be replayed.
    pub(super) fn new(certificate: CertificateDer<'static>, key: PrivateKeyDer<'static>) -> Result<Self, rustls::Error> {
        let fingerprint = Fingerprint::of(&certificate);
        let mut config = ServerConfig::builder_with_provider(Arc::new(provider()))
            .with_protocol_versions(&[&version::TLS13])?
            .with_no_client_auth()
            .with_single_cert(vec![certificate], key)?;
        config.send_tls13_tickets = 0;
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.max_early_data_size = 0;
        // A client without AES instructions says so by its order. Where we have none, ours counts.
        config.ignore_client_order = !has_aes();
        Ok(Self { config: Arc::new(config), fingerprint })
    }

    /// What clients know its key by.
    #[must_use]
    pub fn fingerprint(&self) -> Fingerprint {
        self.fingerprint
    }
}

/// The key of a receiver that was talked to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seen {
    /// Its fingerprint.
    pub fingerprint: Fingerprint,
    /// Was it unknown before, and noted now?
    pub is_new: bool,
}

/// The side that dials, and whom it trusts. Clones share what they saw: the key of the first
/// connection is the only one for all further ones.
#[derive(Debug, Clone)]
pub struct Client {
    trust: Arc<Trust>,
    pub(super) config: Arc<ClientConfig>,
}

impl Client {
    /// One that trusts a single key.
    ///
    /// # Errors
    /// Those of the cryptographic library's set-up.
    pub fn pinned(fingerprint: Fingerprint) -> Result<Self, rustls::Error> {
        Self::new(Policy::Pinned(fingerprint))
    }

    /// One that trusts the key that `file` has for `host` (`name:port`, as the user named it). If it
    /// has none: no key where `strict`, otherwise the first one it meets, which is noted in the file.
    ///
    /// # Errors
    /// Those of the cryptographic library's set-up.
    pub fn known_hosts(file: PathBuf, host: String, strict: bool) -> Result<Self, rustls::Error> {
        Self::new(Policy::KnownHosts { file, host, strict })
    }

    fn new(policy: Policy) -> Result<Self, rustls::Error> {
        let provider = Arc::new(provider());
        let trust = Arc::new(Trust { policy, seen: OnceLock::new(), noting: Mutex::new(()), provider: Arc::clone(&provider) });
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&version::TLS13])?
            .dangerous()
            .with_custom_certificate_verifier(Arc::clone(&trust) as Arc<dyn ServerCertVerifier>)
            .with_no_client_auth();
        config.resumption = Resumption::disabled();
        // Keys are told by their fingerprints: the name would only tell listeners who is talked to.
        config.enable_sni = false;
        Ok(Self { trust, config: Arc::new(config) })
    }

    /// Whom it talked to so far.
    #[must_use]
    pub fn seen(&self) -> Option<Seen> {
        self.trust.seen.get().copied()
    }

    /// Notes the key of a receiver that has proved to have it.
    pub(super) fn confirm(&self, certificate: &[u8]) -> Result<(), Refusal> {
        self.trust.confirm(Fingerprint::of(certificate))
    }

    /// The name that TLS wants and nobody looks at.
    pub(super) fn name() -> Result<ServerName<'static>, TlsError> {
        ServerName::try_from("parallel-transfer").map_err(|_| TlsError::Failed(rustls::Error::UnsupportedNameType))
    }
}

/// Whom to trust before anyone was met.
#[derive(Debug)]
enum Policy {
    Pinned(Fingerprint),
    KnownHosts { file: PathBuf, host: String, strict: bool },
}

#[derive(Debug)]
struct Trust {
    policy: Policy,
    seen: OnceLock<Seen>,
    /// Held by the one who notes a key.
    noting: Mutex<()>,
    provider: Arc<CryptoProvider>,
}

impl Trust {
    /// Is this a key to go on with?
    fn check(&self, found: Fingerprint) -> Result<(), Refusal> {
        let expected = match (&self.policy, self.seen.get()) {
            (_, Some(seen)) => seen.fingerprint,
            (Policy::Pinned(expected), None) => *expected,
            (Policy::KnownHosts { file, host, strict }, None) => {
                return match known_hosts::look_up(file, host, found)? {
                    Verdict::Unknown if *strict => Err(Refusal::Unknown { host: host.clone(), found }),
                    Verdict::Unknown | Verdict::Known => Ok(()),
                    Verdict::Changed { known, line } => Err(changed(file, host, known, found, line)),
                };
            }
        };
        if found == expected { Ok(()) } else { Err(Refusal::Pinned { expected, found }) }
    }

    fn confirm(&self, found: Fingerprint) -> Result<(), Refusal> {
        let _noting = self.noting.lock().unwrap_or_else(PoisonError::into_inner);
        // Another connection may have met another key since this one was checked.
        self.check(found)?;
        if self.seen.get().is_some() {
            return Ok(());
        }
        let is_new = match &self.policy {
            Policy::Pinned(_) => false,
            // So may another run.
            Policy::KnownHosts { file, host, .. } => match known_hosts::add(file, host, found)? {
                Verdict::Unknown => true,
                Verdict::Known => false,
                Verdict::Changed { known, line } => return Err(changed(file, host, known, found, line)),
            },
        };
        let _ = self.seen.set(Seen { fingerprint: found, is_new });
        Ok(())
    }
}

fn changed(file: &std::path::Path, host: &str, known: Fingerprint, found: Fingerprint, line: usize) -> Refusal {
    Refusal::Changed { host: host.to_owned(), known, found, file: file.to_owned(), line }
}

impl ServerCertVerifier for Trust {
    fn verify_server_cert(
        &self, certificate: &CertificateDer<'_>, _: &[CertificateDer<'_>], _: &ServerName<'_>, _: &[u8], _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        match self.check(Fingerprint::of(certificate)) {
            Ok(()) => Ok(ServerCertVerified::assertion()),
            Err(refusal) => Err(CertificateError::Other(OtherError(Arc::new(refusal))).into()),
        }
    }

    fn verify_tls12_signature(
        &self, _: &[u8], _: &CertificateDer<'_>, _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(rustls::Error::General("TLS 1.2 is not spoken here".to_owned()))
    }

    fn verify_tls13_signature(
        &self, message: &[u8], certificate: &CertificateDer<'_>, signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        // Anyone may show a certificate. That the peer has its key is proved here.
        rustls::crypto::verify_tls13_signature(message, certificate, signed, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::{STALL_DEFAULT, TLS_HELLO_TIMEOUT};
    use crate::net::Stream;
    use crate::net::host_key::HostKey;
    use crate::stop::Stop;
    use rustls::server::ResolvesServerCert;
    use rustls::sign::{CertifiedKey, SingleCertAndKey};
    use socket2::{Domain, Socket, Type};
    use std::fs;
    use std::thread;
    use std::time::Instant;

    const HOST: &str = "files.example:6000";

    /// A handshake: what the client and what the server says.
    fn meet(client: &Client, server: &Server) -> (Result<(), TlsError>, Result<(), TlsError>) {
        let (one, other) = Socket::pair(Domain::UNIX, Type::STREAM, None).unwrap();
        let stream = |socket| Stream::new(socket, STALL_DEFAULT, false).unwrap();
        thread::scope(|scope| {
            let served =
                scope.spawn(|| stream(other).start_tls_server(server, &[], Instant::now() + TLS_HELLO_TIMEOUT).map(drop));
            let dialled = stream(one).start_tls_client(client, TLS_HELLO_TIMEOUT, &Stop::new().unwrap()).map(drop);
            (dialled, served.join().unwrap())
        })
    }

    fn refusal(client: &Client, key: &HostKey) -> Refusal {
        match meet(client, &key.server()) {
            (Err(TlsError::Refused(refusal)), Err(TlsError::Failed(rustls::Error::AlertReceived(_)))) => *refusal,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_fingerprint_is_read_as_it_is_shown() {
        let one = Fingerprint::of(b"abc");
        assert_eq!(one.to_string(), "SHA256:ungWv48Bz+pBQUDeXa4iI7ADYaOWF3qctBD/YfIAFa0");
        let hex = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        let colons = hex.as_bytes().chunks(2).map(|two| str::from_utf8(two).unwrap()).collect::<Vec<_>>().join(":");
        for text in [one.to_string(), hex.to_owned(), hex.to_uppercase(), colons.clone(), colons.to_uppercase()] {
            assert_eq!(text.parse(), Ok(one), "{text}");
        }
        assert_eq!(Fingerprint::from_bytes(*one.as_bytes()), one);
        let shown = one.to_string();
        for bad in [
            "",
            "SHA256:",
            &shown[7..],
            &shown[..49],
            &format!("{shown}="),
            &format!("{shown}A"),
            &shown.replace("0", "1"),
            &shown.replace("SHA256", "sha256"),
            &hex[..63],
            &hex.replace('b', "g"),
            &colons.replace(':', "-"),
            &colons.replacen(":", "", 1),
            &"é".repeat(32),
        ] {
            assert_eq!(bad.parse::<Fingerprint>(), Err(FingerprintError), "{bad}");
        }
    }

    #[test]
    fn a_pinned_key_is_the_only_one() {
        let (key, other) = (HostKey::for_one_job().unwrap(), HostKey::for_one_job().unwrap());
        let client = Client::pinned(key.fingerprint()).unwrap();
        assert_eq!(client.seen(), None);
        assert_eq!(refusal(&client, &other), Refusal::Pinned { expected: key.fingerprint(), found: other.fingerprint() });
        assert_eq!(client.seen(), None);
        assert!(matches!(meet(&client, &key.server()), (Ok(()), Ok(()))));
        assert_eq!(client.seen(), Some(Seen { fingerprint: key.fingerprint(), is_new: false }));
    }

    #[test]
    fn a_new_host_is_noted_and_a_changed_key_stops_everything() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("config/known_hosts");
        let (key, other) = (HostKey::for_one_job().unwrap(), HostKey::for_one_job().unwrap());
        let of = |host: &str, strict| Client::known_hosts(file.clone(), host.to_owned(), strict).unwrap();
        assert_eq!(refusal(&of(HOST, true), &key), Refusal::Unknown { host: HOST.to_owned(), found: key.fingerprint() });
        assert!(!file.exists());

        let client = of(HOST, false);
        let clone = client.clone();
        assert!(matches!(meet(&client, &key.server()), (Ok(()), Ok(()))));
        assert_eq!(client.seen(), Some(Seen { fingerprint: key.fingerprint(), is_new: true }));
        assert_eq!(fs::read_to_string(&file).unwrap(), format!("{HOST} {}\n", key.fingerprint()));
        // The first key is the only one from then on, whatever becomes of the file.
        fs::remove_file(&file).unwrap();
        assert!(matches!(refusal(&clone, &other), Refusal::Pinned { .. }));
        fs::write(&file, format!("# mine\n\n{HOST} {}\n", key.fingerprint())).unwrap();

        for strict in [false, true] {
            let client = of(HOST, strict);
            assert!(matches!(meet(&client, &key.server()), (Ok(()), Ok(()))));
            assert!(!client.seen().unwrap().is_new);
            let refused = refusal(&of(HOST, strict), &other);
            let text = refused.to_string();
            for part in ["CHANGED", "line 3", "known_hosts", &key.fingerprint().to_string(), &other.fingerprint().to_string()] {
                assert!(text.contains(part), "{text}");
            }
        }
        // Another port is another host, whichever key it has.
        assert!(matches!(meet(&of("files.example:6001", false), &key.server()), (Ok(()), Ok(()))));
        assert_eq!(fs::read_to_string(&file).unwrap().lines().count(), 4);
        fs::write(&file, format!("{HOST} SHA256:AAAA\n")).unwrap();
        assert!(matches!(refusal(&of(HOST, false), &key), Refusal::KnownHosts(_)));
    }

    #[test]
    fn connections_that_start_at_once_agree_on_one_key() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("known_hosts");
        let client = Client::known_hosts(file.clone(), HOST.to_owned(), false).unwrap();
        let keys = [HostKey::for_one_job().unwrap(), HostKey::for_one_job().unwrap()];
        let met: Vec<_> = thread::scope(|scope| {
            let run = |index: usize| (index, meet(&client.clone(), &keys[index % 2].server()).0);
            let all: Vec<_> = (0..6).map(|index| scope.spawn(move || run(index))).collect();
            all.into_iter().map(|one| one.join().unwrap()).collect()
        });
        let fingerprint = client.seen().unwrap().fingerprint;
        for (index, result) in met {
            assert_eq!(result.is_ok(), keys[index % 2].fingerprint() == fingerprint);
        }
        assert_eq!(fs::read_to_string(&file).unwrap(), format!("{HOST} {fingerprint}\n"));
    }

    #[test]
    fn a_certificate_without_its_key_proves_nothing() {
        let make = || rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap();
        let (shown, own) = (make(), make());
        let certificate = rcgen::CertificateParams::default().self_signed(&shown).unwrap().der().clone();
        let client = Client::pinned(Fingerprint::of(&certificate)).unwrap();
        let own = PrivateKeyDer::try_from(own.serialize_der()).unwrap();
        let certified = CertifiedKey::new(vec![certificate], provider().key_provider.load_private_key(own).unwrap());
        let config = ServerConfig::builder_with_provider(Arc::new(provider()))
            .with_protocol_versions(&[&version::TLS13])
            .unwrap()
            .with_no_client_auth()
            .with_cert_resolver(Arc::new(SingleCertAndKey::from(certified)) as Arc<dyn ResolvesServerCert>);
        let (client_says, _) = meet(&client, &Server { config: Arc::new(config), fingerprint: Fingerprint::from_bytes([0; 32]) });
        assert!(matches!(client_says, Err(TlsError::Failed(rustls::Error::InvalidCertificate(_)))), "{client_says:?}");
        assert_eq!(client.seen(), None);
    }
}
