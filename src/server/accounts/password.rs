//! Passwords and their hashes: Argon2id, in the format that is usual for it (PHC string).

use std::sync::{Mutex, PoisonError};

use argon2::password_hash::phc::{Output, ParamsString, PasswordHash, Salt};
use argon2::{Algorithm, Argon2, Block, Params, Version};

use super::gate::Gate;
use crate::limits::{HASH_COST_FACTOR_MAX, HASH_LANES, HASH_MEMORY_KIB, HASH_PASSES, PASSWORD_LEN_MAX};

/// Of what there is no password.
const NO_SALT: [u8; 16] = [0; 16];

/// Why nothing was hashed or compared.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum HashError {
    /// Too many others want the same.
    Busy,
    /// No password has so many bytes.
    Length,
    /// The stored hash is of no use, or the system has no memory or no randomness.
    Failed(String),
}

/// Computes hashes, a few at once.
#[derive(Debug, Default)]
pub(super) struct Hashes {
    pub(super) gate: Gate,
    /// The memory of hashes before, as many as were computed at once. Given back, it would stay with the
    /// threads that used it, each its own 19 MiB.
    spare: Mutex<Vec<Vec<Block>>>,
}

impl Hashes {
    /// The hash to keep of a password.
    pub(super) fn hash(&self, password: &[u8]) -> Result<String, HashError> {
        if !is_password(password) {
            return Err(HashError::Length);
        }
        let mut salt = NO_SALT;
        aws_lc_rs::rand::fill(&mut salt).map_err(|_| HashError::Failed("the system has no randomness to give".to_owned()))?;
        let _inside = self.gate.enter().ok_or(HashError::Busy)?;
        let params = usual_params()?;
        let hash = PasswordHash {
            algorithm: Algorithm::Argon2id.ident(),
            version: Some(Version::V0x13.into()),
            params: ParamsString::try_from(&params).map_err(failed)?,
            salt: Some(Salt::new(&salt).map_err(failed)?),
            hash: Some(self.compute(Version::V0x13, params, password, &salt)?),
        };
        Ok(hash.to_string())
    }

    /// Is `password` the one that the hash was made of which `stored` gives? That is asked when it is this
    /// one's turn. One hash is computed in any case, of as many bytes as a password may have.
    pub(super) fn is_right<T>(
        &self, password: &[u8], stored: impl FnOnce() -> Result<(T, Option<String>), HashError>,
    ) -> Result<(T, bool), HashError> {
        let _inside = self.gate.enter().ok_or(HashError::Busy)?;
        let (of, stored) = stored()?;
        let tried = &password[..password.len().min(PASSWORD_LEN_MAX)];
        let is_same = match stored.as_deref().map(parse) {
            Some(Ok(Stored { version, params, salt, output })) => {
                let computed = self.compute(version, params, tried, &salt)?;
                aws_lc_rs::constant_time::verify_slices_are_equal(computed.as_bytes(), output.as_bytes()).is_ok()
            }
            other => {
                self.compute(Version::V0x13, usual_params()?, tried, &NO_SALT)?;
                if let Some(Err(error)) = other {
                    return Err(error);
                }
                false
            }
        };
        Ok((of, is_same && is_password(password)))
    }

    /// The hash itself. Whoever asks is inside the gate.
    fn compute(&self, version: Version, params: Params, password: &[u8], salt: &[u8]) -> Result<Output, HashError> {
        let (blocks_num, output_len) = (params.block_count(), params.output_len().unwrap_or(Params::DEFAULT_OUTPUT_LEN));
        let spare = || self.spare.lock().unwrap_or_else(PoisonError::into_inner);
        let mut blocks = spare().pop().unwrap_or_default();
        blocks.resize(blocks_num, Block::new());
        let argon2 = Argon2::new(Algorithm::Argon2id, version, params);
        let mut output = vec![0; output_len];
        let computed = argon2.hash_password_into_with_memory(password, salt, &mut output, &mut blocks);
        // What a costly hash of old took is no use to the others.
        if blocks_num <= HASH_MEMORY_KIB as usize {
            spare().push(blocks);
        }
        computed.map_err(failed)?;
        Output::new(&output).map_err(failed)
    }
}

/// A hash that was kept.
struct Stored {
    version: Version,
    params: Params,
    salt: Salt,
    output: Output,
}

fn is_password(bytes: &[u8]) -> bool {
    (1..=PASSWORD_LEN_MAX).contains(&bytes.len())
}

fn usual_params() -> Result<Params, HashError> {
    Params::new(HASH_MEMORY_KIB, HASH_PASSES, HASH_LANES, None).map_err(failed)
}

/// A stored hash whose computation costs no more than it may.
fn parse(stored: &str) -> Result<Stored, HashError> {
    let useless = || HashError::Failed("the stored hash of the password is of no use; set the password anew".to_owned());
    let hash = PasswordHash::new(stored).map_err(|_| useless())?;
    let params = Params::try_from(&hash).map_err(|_| useless())?;
    let version = hash.version.map_or(Ok(Version::V0x13), Version::try_from).map_err(|_| useless())?;
    let costs = [(params.m_cost(), HASH_MEMORY_KIB), (params.t_cost(), HASH_PASSES), (params.p_cost(), HASH_LANES)];
    let is_usual = hash.algorithm.as_str() == "argon2id" && costs.iter().all(|(cost, ours)| *cost <= ours * HASH_COST_FACTOR_MAX);
    match (hash.salt, hash.hash) {
        (Some(salt), Some(output)) if is_usual => Ok(Stored { version, params, salt, output }),
        _ => Err(useless()),
    }
}

fn failed(error: impl std::fmt::Display) -> HashError {
    HashError::Failed(format!("can't hash a password: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_right(hashes: &Hashes, password: &[u8], stored: Option<&str>) -> Result<bool, HashError> {
        hashes.is_right(password, || Ok(((), stored.map(str::to_owned)))).map(|((), is_right)| is_right)
    }

    // B16
    #[test]
    fn a_password_may_have_any_bytes_but_not_any_number_of_them() {
        let hashes = Hashes::default();
        let longest = vec![0xff; PASSWORD_LEN_MAX];
        for password in [&b"x"[..], b"\0", b"a\0b", b"\xff\xfe", &longest] {
            let hash = hashes.hash(password).unwrap();
            assert!(hash.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{hash}");
            assert_eq!(is_right(&hashes, password, Some(&hash)), Ok(true));
            assert_eq!(is_right(&hashes, b"a", Some(&hash)), Ok(false));
            // As C's strings would have it, these were the same.
            assert_eq!(is_right(&hashes, &[password, b"\0"].concat(), Some(&hash)), Ok(false));
        }
        let (empty, huge) = (b"", vec![0xff; PASSWORD_LEN_MAX + 1]);
        assert_eq!(hashes.hash(empty), Err(HashError::Length));
        assert_eq!(hashes.hash(&huge), Err(HashError::Length));
        let hash = hashes.hash(&longest).unwrap();
        assert_ne!(hash, hashes.hash(&longest).unwrap(), "salted");
        assert_eq!(is_right(&hashes, &huge, Some(&hash)), Ok(false));
        assert_eq!(is_right(&hashes, empty, Some(&hash)), Ok(false));
    }

    // D16
    #[test]
    fn a_stored_hash_that_was_altered_is_an_error_and_costs_no_more() {
        let hashes = Hashes::default();
        let good = hashes.hash(b"x").unwrap();
        for bad in [
            String::new(),
            "x".to_owned(),
            good.replace("argon2id", "argon2i"),
            good.replace("argon2id", "scrypt"),
            good.replace("m=19456", "m=4294967295"),
            good.replace("t=2", "t=4294967295"),
            good.replace("p=1", "p=16777215"),
            good.rsplit_once('$').unwrap().0.to_owned(),
            good[..good.len() - 1].to_owned() + "\u{1}",
        ] {
            let before = hashes.gate.entered();
            assert!(matches!(is_right(&hashes, b"x", Some(&bad)), Err(HashError::Failed(_))), "{bad}");
            assert_eq!(hashes.gate.entered(), before + 1);
        }
        assert_eq!(is_right(&hashes, b"x", None), Ok(false));
    }
}
