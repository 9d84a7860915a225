//! A configuration that is replaced while it is served by: each connection keeps the one it began with.

use std::sync::{Arc, PoisonError, RwLock};

use super::Config;

/// What a receiver is to do, as it stands now.
#[derive(Debug)]
pub struct LiveConfig(RwLock<Arc<Config>>);

impl LiveConfig {
    /// One that begins as `config`.
    #[must_use]
    pub fn new(config: Config) -> Self {
        Self(RwLock::new(Arc::new(config)))
    }

    /// What counts for whoever connects now.
    #[must_use]
    pub fn current(&self) -> Arc<Config> {
        Arc::clone(&self.0.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Takes over from `config` what may change while connections are served. The root, the key, what is
    /// spoken, whether files are served and, where one job is, who may bring it stay as they are.
    pub fn change(&self, config: Config) {
        let mut current = self.0.write().unwrap_or_else(PoisonError::into_inner);
        let is_one_job = current.ticket.is_some();
        // What is allowed where nobody logs in is not what is where they do.
        let stays = is_one_job || config.wants_login != current.wants_login;
        let allowed = if stays { current.allowed.clone() } else { config.allowed };
        *current = Arc::new(Config {
            root: current.root.clone(),
            allowed,
            idle: if is_one_job { current.idle } else { config.idle },
            wants_login: current.wants_login,
            tls: current.tls.clone(),
            congestion: Arc::clone(&current.congestion),
            serves_v1: current.serves_v1,
            serves_plain: current.serves_plain,
            relays_only: current.relays_only,
            ticket: current.ticket,
            ..config
        });
    }
}
