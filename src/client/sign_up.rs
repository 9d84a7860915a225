//! Makes an account at a receiver that lets anyone have one.

use std::io::{Read as _, Write as _};

use anyhow::{Context as _, bail, ensure};

use super::Refused;
use crate::limits::OPEN_TIMEOUT;
use crate::net::dial::Dialer;
use crate::protocol::{Answer, Features, Reply, Secret, Status, v2};
use crate::stop::Stop;

/// Asks the receiver for an account of this name.
///
/// # Errors
/// [`Refused`]; nothing would be encrypted; the receiver can't be reached, or answers something else.
pub fn sign_up(dialer: &Dialer, user: &str, password: &Secret, stop: &Stop) -> anyhow::Result<()> {
    ensure!(dialer.tls().is_some(), "an account is made over an encrypted connection: leave --plain out");
    let mut stream = dialer.dial(stop).context("no account was made")?;
    let mut bytes = Vec::new();
    v2::encode_greeting(&mut bytes, Features::OURS);
    v2::request::encode_sign_up(&mut bytes, user.as_bytes(), password);
    stream.handle().limit_waits(OPEN_TIMEOUT)?;
    stream.write_all(&bytes)?;
    let (mut room, mut answers) = ([0; 4096], Vec::new());
    loop {
        while let Some((reply, len)) = v2::reply::decode(&answers)? {
            answers.drain(..len);
            match reply {
                Reply::Welcome { .. } | Reply::Heartbeat => {}
                Reply::Answer(Answer { status: Status::Stored, .. }) => return Ok(()),
                Reply::Refused(why) => return Err(Refused(why).into()),
                _ => bail!("{dialer} does not answer as a receiver of this program does"),
            }
        }
        match stream.read(&mut room).with_context(|| format!("{dialer} does not answer"))? {
            0 => bail!("{dialer} closed the connection; whether there is an account now is not known"),
            len => answers.extend_from_slice(&room[..len]),
        }
    }
}
