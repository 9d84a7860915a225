//! The flags that say which ways lead to the receiver.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use parallel_transfer::client::{self, Login};
use parallel_transfer::limits::{RELAYS_IN_A_ROW_MAX, ROUTES_MAX, TICKET_LEN_MAX};
use parallel_transfer::net::IpVersion;
use parallel_transfer::net::dial::{Bind, Dialer};
use parallel_transfer::net::host::HostPort;
use parallel_transfer::net::pace::Pace;
use parallel_transfer::net::tls::Client;
use parallel_transfer::path::Escaped;
use parallel_transfer::secret::{PasswordSource, Secret, VIA_PASSWORD_VARIABLE, read_bounded};
use parallel_transfer::terminal;
use parallel_transfer::ticket::Ticket;

use super::secrets::{default_key, load_key};
use super::wire::Wire;

/// Which ways lead to the receiver.
#[derive(Debug, clap::Args)]
pub(crate) struct Routes {
    /// Go through these relays ('recv --relay_to') as well as directly: A/B goes through A and then B. USER@ logs in
    /// to a relay that wants it; the port is that of --port where none is said
    #[arg(long, value_name = "[USER@]HOST[:PORT][/...],...", value_delimiter = ',', value_parser = parse_relays)]
    via: Vec<String>,

    /// Go through the relay that printed the ticket in FILE ('recv --once --relay_to')
    #[arg(long = "via_ticket_file", alias = "via-ticket-file", value_name = "FILE")]
    via_ticket_file: Vec<PathBuf>,

    /// The first line of FILE is the password for relays; else the environment's PTF_VIA_PASSWORD, the key
    /// that 'send key' made, or one that is asked for
    #[arg(long = "via_password_file", alias = "via-password-file", value_name = "FILE", requires = "via")]
    via_password_file: Option<PathBuf>,

    /// Go through relays alone
    #[arg(long = "no_direct", alias = "no-direct")]
    no_direct: bool,

    /// Go directly from each of these addresses or interfaces of this machine
    #[arg(long, value_name = "ADDRESS,...", value_delimiter = ',', conflicts_with = "no_direct")]
    bind: Vec<String>,
}

/// Whom all routes lead to.
pub(crate) struct Goal<'a> {
    /// As the user named it; with a ticket none, but addresses.
    pub(crate) server: Option<(&'a str, u16)>,
    pub(crate) ticket: Option<&'a Ticket>,
    pub(crate) ip_version: Option<IpVersion>,
    pub(crate) stall: Duration,
    pub(crate) retry_for: Duration,
    pub(crate) wire: &'a Wire,
    /// The rate that all routes share, if there is one.
    pub(crate) pace: Option<Arc<Pace>>,
    /// Whom it is to be trusted as.
    pub(crate) tls: Option<Client>,
}

impl Goal<'_> {
    fn direct(&self, ip_version: Option<IpVersion>) -> anyhow::Result<Dialer> {
        let dialer = match (self.ticket, self.server) {
            (Some(ticket), _) => Dialer::to_addresses(ticket.sockets(), self.stall, self.retry_for),
            (None, Some((server, port))) => Dialer::to_host(server, port, ip_version, self.stall, self.retry_for)?,
            (None, None) => bail!("--server and --port are needed"),
        };
        Ok(self.wire.dress(dialer, self.pace.clone()).with_tls(self.tls.clone()))
    }

    /// What relays may know it by.
    fn names(&self) -> anyhow::Result<Vec<HostPort>> {
        match (self.ticket, self.server) {
            (Some(ticket), _) => Ok(ticket.sockets().into_iter().map(HostPort::from).collect()),
            (None, Some((server, port))) => Ok(vec![HostPort::new(server, port)?]),
            (None, None) => bail!("--server and --port are needed"),
        }
    }
}

impl Routes {
    /// Is any of it said?
    #[allow(dead_code, reason = "only send copies on this machine")]
    pub(crate) fn are_given(&self) -> bool {
        self.no_direct || !(self.via.is_empty() && self.via_ticket_file.is_empty() && self.bind.is_empty())
    }

    /// Is standard input named as where a secret comes from?
    #[allow(dead_code, reason = "only the shell has another use for it")]
    pub(crate) fn reads_stdin(&self) -> bool {
        self.via_password_file.iter().chain(&self.via_ticket_file).any(|file| file == Path::new("-"))
    }

    /// A dialer to the receiver that takes all these routes.
    pub(crate) fn dialer(&self, goal: &Goal<'_>) -> anyhow::Result<Dialer> {
        let mut routes = Vec::new();
        if !self.no_direct && self.bind.is_empty() {
            routes.push(goal.direct(goal.ip_version)?);
        }
        for bind in &self.bind {
            let bind = bind.parse().map_or_else(|_| Bind::Interface(bind.clone()), Bind::Address);
            let version = match bind {
                Bind::Address(IpAddr::V4(_)) => Some(IpVersion::V4),
                Bind::Address(IpAddr::V6(_)) => Some(IpVersion::V6),
                Bind::Interface(_) => None,
            };
            // Where there is none of that version its own error says so, and others are used.
            let direct = goal.direct(goal.ip_version.or(version)).or_else(|_| goal.direct(goal.ip_version))?;
            routes.push(direct.with_bind(Some(bind)));
        }
        let has_relays = !(self.via.is_empty() && self.via_ticket_file.is_empty());
        ensure!(
            !has_relays || goal.tls.is_some(),
            "through a relay only encrypted connections go: leave --plain and --protocol v1 out"
        );
        for relays in &self.via {
            routes.push(self.through(relays, goal).with_context(|| format!("--via {}", relays.escape_debug()))?);
        }
        for file in &self.via_ticket_file {
            let shown = Escaped::path(file).to_string();
            let read = read_bounded(file, TICKET_LEN_MAX).with_context(|| format!("can't read a ticket from '{shown}'"))?;
            let ticket: Ticket = String::from_utf8_lossy(read.as_bytes()).parse().with_context(|| format!("'{shown}'"))?;
            let name = ticket.sockets().first().map(ToString::to_string).unwrap_or_default();
            let relay = Dialer::to_addresses(ticket.sockets(), goal.stall, goal.retry_for);
            let relay = goal.wire.dress(relay, goal.pace.clone()).with_tls(Some(Client::pinned(ticket.fingerprint)?));
            routes.push(self.beyond(goal, name, relay, Login::Ticket(ticket.secret))?);
        }
        ensure!(routes.len() <= ROUTES_MAX, "{} routes are too many: at most {ROUTES_MAX}", routes.len());
        Dialer::any(routes).context("--no_direct leaves no way: name relays with --via")
    }

    /// A dialer through relays in a row.
    fn through(&self, relays: &str, goal: &Goal<'_>) -> anyhow::Result<Dialer> {
        let port = goal.server.map(|(_, port)| port);
        let relays: Vec<(Option<&str>, HostPort)> = relays
            .split('/')
            .map(|relay| {
                let (user, host) = relay.rsplit_once('@').map_or((None, relay), |(user, host)| (Some(user), host));
                Ok((user, HostPort::parse(host, port)?))
            })
            .collect::<anyhow::Result<_>>()?;
        let mut way: Option<(Dialer, String, Login)> = None;
        for (user, host) in relays {
            let login = match user {
                Some(user) => self.login(user, &host.to_string())?,
                None => Login::Nobody,
            };
            let tls = goal.wire.client_of_known(&host.to_string())?;
            let (dialer, name) = match way {
                None => {
                    let dialer = Dialer::to_host(host.host(), host.port(), goal.ip_version, goal.stall, goal.retry_for)?;
                    (goal.wire.dress(dialer, goal.pace.clone()), host.to_string())
                }
                Some((before, name, login)) => {
                    let longer = format!("{name}/{host}");
                    (client::through(vec![host], name, before, login)?, longer)
                }
            };
            way = Some((dialer.with_tls(Some(tls)), name, login));
        }
        let (relay, name, login) = way.context("no relay is named")?;
        self.beyond(goal, name, relay, login)
    }

    fn beyond(&self, goal: &Goal<'_>, name: String, relay: Dialer, login: Login) -> anyhow::Result<Dialer> {
        Ok(client::through(goal.names()?, name, relay, login)?.with_pace(goal.pace.clone()).with_tls(goal.tls.clone()))
    }

    /// Who the user is to a relay. Nothing of what is for the receiver goes there.
    fn login(&self, user: &str, relay: &str) -> anyhow::Result<Login> {
        let user = user.to_owned();
        let variable = std::env::var_os(VIA_PASSWORD_VARIABLE).map(Secret::of);
        let file: Option<&Path> = self.via_password_file.as_deref();
        let key = default_key().ok().filter(|key| file.is_none() && variable.is_none() && key.exists());
        if let Some(key) = key {
            return Ok(Login::Key { user, key: load_key(&key)? });
        }
        let prompt = format!("Password for {user} at relay {relay}: ");
        let password = PasswordSource { file, variable }.password(|| terminal::ask_secret(&prompt))?;
        Ok(Login::Password { user, password })
    }
}

/// Relays in a row, as they were written. Which port is meant where none is said is known later.
fn parse_relays(text: &str) -> Result<String, String> {
    let relays = text.split('/').map(|relay| relay.rsplit_once('@').map_or(relay, |(_, host)| host));
    if relays.clone().count() > RELAYS_IN_A_ROW_MAX {
        return Err(format!("at most {RELAYS_IN_A_ROW_MAX} relays in a row"));
    }
    for relay in relays {
        HostPort::parse(relay, Some(1)).map_err(|error| error.to_string())?;
    }
    Ok(text.to_owned())
}
