//! The keys that users log in with: Ed25519, kept as PKCS#8, told on one line.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use aws_lc_rs::signature::{ED25519, Ed25519KeyPair, KeyPair as _, UnparsedPublicKey};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rustls::pki_types::PrivatePkcs8KeyDer;
use rustls::pki_types::pem::PemObject as _;
use zeroize::Zeroizing;

use crate::limits::KEY_COMMENT_LEN_MAX;

/// The first word of a line that tells a key.
const KIND: &str = "ptf-ed25519";

/// Characters of base64 on a line of PEM (RFC 7468, 2).
const PEM_LINE_LEN: usize = 64;

/// The half of a key that a receiver is told: `ptf-ed25519`, 32 bytes in base64 and a comment, with spaces
/// between.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PublicKey {
    /// The key, as RFC 8032 has it.
    pub bytes: [u8; 32],
    /// Whose it is, for people; may be empty.
    pub comment: String,
}

/// The half that never leaves its machine.
#[derive(Clone)]
pub struct PrivateKey(Arc<Ed25519KeyPair>);

/// Why something is no key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// A line that says something else.
    #[error("this is no key: the line that 'send key' prints begins with '{KIND}' and 44 letters and digits")]
    NoLine,
    /// A comment that is too long, or that a terminal would obey.
    #[error("a key's comment has at most {KEY_COMMENT_LEN_MAX} bytes, and no control characters")]
    Comment,
    /// A file with something else, perhaps a key of another kind.
    #[error("there is no Ed25519 key in PKCS#8 in it; 'send key' makes one")]
    NoPrivateKey,
    /// None could be made, or used.
    #[error("the system has no randomness to give, or no memory")]
    Unmade,
}

impl PublicKey {
    /// Was `message` signed by the other half?
    #[must_use]
    pub fn has_signed(key: &[u8; 32], message: &[u8], signature: &[u8]) -> bool {
        UnparsedPublicKey::new(&ED25519, key).verify(message, signature).is_ok()
    }

    /// The key's bytes as they are told.
    #[must_use]
    pub fn base64(&self) -> String {
        STANDARD.encode(self.bytes)
    }
}

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{KIND} {}", self.base64())?;
        if self.comment.is_empty() { Ok(()) } else { write!(f, " {}", self.comment) }
    }
}

impl FromStr for PublicKey {
    type Err = KeyError;

    fn from_str(line: &str) -> Result<Self, KeyError> {
        let rest = line.trim().strip_prefix(KIND).filter(|rest| rest.starts_with(' ')).ok_or(KeyError::NoLine)?.trim_start();
        let (base64, comment) = rest.split_once(' ').unwrap_or((rest, ""));
        let bytes = STANDARD.decode(base64).ok().and_then(|bytes| bytes.try_into().ok()).ok_or(KeyError::NoLine)?;
        let comment = comment.trim();
        if comment.len() > KEY_COMMENT_LEN_MAX || comment.contains(char::is_control) {
            return Err(KeyError::Comment);
        }
        Ok(Self { bytes, comment: comment.to_owned() })
    }
}

impl PrivateKey {
    /// A new key, and the PEM that it is kept as.
    ///
    /// # Errors
    /// [`KeyError::Unmade`].
    pub fn make() -> Result<(Self, Zeroizing<String>), KeyError> {
        let key = Ed25519KeyPair::generate().map_err(|_| KeyError::Unmade)?;
        // Version 1, without the public half: OpenSSL reads no other.
        let der = key.to_pkcs8v1().map_err(|_| KeyError::Unmade)?;
        let base64 = Zeroizing::new(STANDARD.encode(der.as_ref()));
        let mut pem = Zeroizing::new("-----BEGIN PRIVATE KEY-----\n".to_owned());
        for line in base64.as_bytes().chunks(PEM_LINE_LEN) {
            pem.extend(line.iter().map(|&byte| char::from(byte)));
            pem.push('\n');
        }
        pem.push_str("-----END PRIVATE KEY-----\n");
        Ok((Self(Arc::new(key)), pem))
    }

    /// The key that was kept.
    ///
    /// # Errors
    /// [`KeyError::NoPrivateKey`].
    pub fn from_pem(pem: &[u8]) -> Result<Self, KeyError> {
        let der = PrivatePkcs8KeyDer::from_pem_slice(pem).map_err(|_| KeyError::NoPrivateKey)?;
        Ed25519KeyPair::from_pkcs8(der.secret_pkcs8_der()).map(|key| Self(Arc::new(key))).map_err(|_| KeyError::NoPrivateKey)
    }

    /// The other half.
    #[must_use]
    pub fn public(&self) -> [u8; 32] {
        // A public key of Ed25519 has 32 bytes.
        self.0.public_key().as_ref().try_into().unwrap_or_default()
    }

    /// The signature of a message: 64 bytes.
    ///
    /// # Errors
    /// [`KeyError::Unmade`].
    pub fn sign(&self, message: &[u8]) -> Result<[u8; 64], KeyError> {
        let signature = self.0.try_sign(message).map_err(|_| KeyError::Unmade)?;
        signature.as_ref().try_into().map_err(|_| KeyError::Unmade)
    }
}

impl fmt::Debug for PrivateKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PrivateKey")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(comment: &str) -> String {
        PublicKey { bytes: [7; 32], comment: comment.to_owned() }.to_string()
    }

    #[test]
    fn a_line_reads_as_it_was_written_and_nothing_else_does() {
        for comment in ["", "me@host", "my old laptop", "é", &"x".repeat(KEY_COMMENT_LEN_MAX)] {
            let key: PublicKey = line(comment).parse().unwrap();
            assert_eq!((key.bytes, key.comment.as_str()), ([7; 32], comment));
            assert_eq!(format!("  {}\n", line(comment)).parse(), Ok(key));
        }
        let whole = line("");
        for cut in 0..whole.len() {
            assert_eq!(whole[..cut].parse::<PublicKey>(), Err(KeyError::NoLine), "{cut}");
        }
        for (text, error) in [
            (whole.replace("ed25519", "rsa"), KeyError::NoLine),
            (whole.replace(' ', ""), KeyError::NoLine),
            (whole.replace('=', "A"), KeyError::NoLine),
            (format!("{whole}A"), KeyError::NoLine),
            ("ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAI me".to_owned(), KeyError::NoLine),
            (line("a\nb"), KeyError::Comment),
            (line("a\x1bb"), KeyError::Comment),
            (line(&"x".repeat(KEY_COMMENT_LEN_MAX + 1)), KeyError::Comment),
        ] {
            assert_eq!(text.parse::<PublicKey>(), Err(error), "{text:?}");
        }
    }

    #[test]
    fn what_one_half_signed_the_other_confirms_and_nothing_else() {
        let (key, pem) = PrivateKey::make().unwrap();
        let kept = PrivateKey::from_pem(pem.as_bytes()).unwrap();
        assert_eq!(kept.public(), key.public());
        let signature = kept.sign(b"message").unwrap();
        assert!(PublicKey::has_signed(&key.public(), b"message", &signature));
        assert!(!PublicKey::has_signed(&key.public(), b"massage", &signature));
        assert!(!PublicKey::has_signed(&PrivateKey::make().unwrap().0.public(), b"message", &signature));
        assert!(!PublicKey::has_signed(&[0; 32], b"message", &[0; 64]));
        for len in [0, 1, 63] {
            assert!(!PublicKey::has_signed(&key.public(), b"message", &signature[..len]));
        }
        assert_eq!(format!("{key:?}"), "PrivateKey");
        for pem in [&b""[..], b"-----BEGIN PRIVATE KEY-----\n", &pem.as_bytes()[..pem.len() / 2], &[0xff; 100]] {
            assert_eq!(PrivateKey::from_pem(pem).err(), Some(KeyError::NoPrivateKey));
        }
    }
}
