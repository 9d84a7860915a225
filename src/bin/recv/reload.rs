//! SIGHUP: the configuration file is read again while connections are served.

use std::ffi::OsString;
use std::sync::Arc;

use clap::{ArgMatches, FromArgMatches as _};
use parallel_transfer::server::LiveConfig;
use parallel_transfer::terminal::LogLevel;

use crate::args::{Args, FIXED};
use crate::config::{self, Refused};
use crate::service;

/// What is needed to take over a changed file.
pub(crate) struct Reload {
    /// The command line.
    pub(crate) arguments: Vec<OsString>,
    /// What it said together with the file at the start.
    pub(crate) matches: ArgMatches,
    /// What is served by.
    pub(crate) live: Arc<LiveConfig>,
    /// How much is logged.
    pub(crate) level: LogLevel,
    /// What the service manager shows of this receiver.
    pub(crate) status: String,
}

impl Reload {
    /// Takes over what the file says now. One that is wrong changes nothing.
    pub(crate) fn run(&self) {
        if !self.matches.contains_id("config") {
            tracing::info!("asked to read the configuration again (SIGHUP), but there is none (--config)");
            return;
        }
        service::tell_reloading();
        match self.change() {
            Ok(()) => tracing::info!("the configuration was read again"),
            Err(why) => tracing::error!("{why}; the old configuration stays"),
        }
        service::tell_ready(&self.status);
    }

    fn change(&self) -> Result<(), String> {
        let matches = config::parse(&self.arguments).map_err(|refused| match refused {
            Refused::File(why) => why,
            Refused::CommandLine(error) => error.to_string(),
        })?;
        let args = Args::from_arg_matches(&matches).map_err(|error| error.to_string())?;
        let config = args.config().map_err(|error| format!("{error:#}"))?;
        let raw = |matches: &ArgMatches, id| matches.get_raw(id).map(|values| values.map(OsString::from).collect::<Vec<_>>());
        for id in FIXED.iter().filter(|id| raw(&matches, id) != raw(&self.matches, id)) {
            tracing::warn!("'{id}' stays as it was at the start: only a restart changes it");
        }
        self.live.change(config);
        self.level.change(args.loudness());
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser as _;

    #[test]
    fn an_open_receiver_stays_one_for_neighbours() {
        let config = |flags: &[&str]| Args::parse_from([&["recv", "--port", "0"], flags].concat()).config().unwrap();
        let live = LiveConfig::new(config(&[]));
        // What 'accounts' in the file does after a SIGHUP; the receiver goes on without accounts.
        live.change(config(&["--accounts", "/etc/accounts.db", "--congestion", "nonsense"]));
        assert_ne!(live.current().congestion.name(), "nonsense");
        assert!(live.current().serves_v1);
        assert!(!live.current().allowed.holds("8.8.8.8".parse().unwrap()), "the world may write");
    }
}
