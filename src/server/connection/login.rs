//! Who comes in on a connection: logins, accounts that are made, and those who guess.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::{Connection, Shared, State};
use crate::protocol::{Answer, BUSY, Credential, Open, Reply, Secret, Status};
use crate::server::handlers::Ending;
use crate::server::homes::{Admitted, Home, NotAdmitted};
use crate::server::penalties::Penalties;

impl Connection<'_> {
    /// Finds the home of whoever shows what is in `open`, which is forgotten.
    pub(super) fn admit(&mut self, open: &mut Open) -> Result<Admitted, Ending> {
        let credential = std::mem::replace(&mut open.credential, Credential::None);
        let Shared { homes, config, .. } = self.shared;
        if homes.want_login() {
            self.check_penalties(self.shared.penalties)?;
        }
        let host_key = config.tls.as_ref().filter(|_| self.stream.stream.is_encrypted()).map(|tls| tls.fingerprint());
        let admitted = homes.admit(&credential, host_key.as_ref().map(|key| key.as_bytes()), &open.token);
        let admitted = match admitted {
            Ok(admitted) => admitted,
            Err(not) => return Err(self.deny(credential.user(), &not)),
        };
        if homes.want_login() {
            // Others may have guessed while this one's hash was computed: all at once tell no more.
            self.check_penalties(self.shared.penalties)?;
        }
        if let Some(owner) = &admitted.home.owner {
            self.audit.logged_in(owner.name.as_str().into());
        }
        Ok(admitted)
    }

    pub(super) fn sign_up(&mut self, user: &[u8], password: &Secret) -> Result<io::Result<()>, Ending> {
        let State::Greeted = self.state else { return Err(Ending::refused("an account is made once, after a hello")) };
        self.check_penalties(self.shared.sign_ups)?;
        // Each counts, whatever comes of it: nobody makes a thousand of them, or finds out who is here.
        self.shared.sign_ups.note(self.peer, self.shared.config.login_tries, Instant::now()).map_err(too_many)?;
        let name = self.shared.homes.sign_up(user, password).map_err(|not| self.deny(user, &not))?;
        tracing::info!("{}: made the account {name}", self.peer);
        self.audit.signed_up(name.as_str());
        Ok(self.stream.reply(&Reply::Answer(Answer::of(Status::Stored))))
    }

    /// Does this address guess?
    fn check_penalties(&mut self, penalties: &Penalties) -> Result<(), Ending> {
        // It may take a while: what was said so far is to arrive.
        self.stream.send_answers().map_err(|error| Ending::broken("an answer", &error))?;
        penalties.check(self.peer, self.shared.config.login_tries, Instant::now()).map_err(too_many)
    }

    /// Says no, which takes time where it may be the answer to a guess.
    fn deny(&self, user: &[u8], not: &NotAdmitted) -> Ending {
        self.audit.denied(user, &not.why);
        tracing::warn!("{}: not logged in: {}", self.peer, not.why);
        if not.is_guess {
            match self.shared.penalties.note(self.peer, self.shared.config.login_tries, Instant::now()) {
                Ok(delay) => self.shared.stop.wait(delay),
                Err(left) => return too_many(left),
            };
        }
        Ending::refused(&not.said)
    }

    /// Has the account that this home is of as many connections as it may have?
    pub(super) fn limit_account(&self, home: &Arc<Home>) -> Result<(), Ending> {
        let max = self.shared.config.per_account_max;
        if home.owner.is_none() || self.slot.count_of(home) < max {
            return Ok(());
        }
        Err(Ending::refused(format!("{BUSY}this account has {max} connections already")))
    }
}

pub(in crate::server) fn too_many(left: Duration) -> Ending {
    Ending::refused(format!("{BUSY}too many tries from your address: try again in {} s", left.as_secs() + 1))
}
