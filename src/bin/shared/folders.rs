//! This program's folders in the user's home. The one place that asks the environment for them.

use std::env::var_os;
use std::path::PathBuf;

use parallel_transfer::flags::folder_of_user;

/// Where host keys, indexes and what else a program remembers are; none where there is no home.
pub(crate) fn state_folder() -> Option<PathBuf> {
    folder_of_user(var_os("XDG_STATE_HOME"), var_os("HOME"), ".local/state")
}

/// Where keys of the user and known hosts are; none where there is no home.
pub(crate) fn config_folder() -> Option<PathBuf> {
    folder_of_user(var_os("XDG_CONFIG_HOME"), var_os("HOME"), ".config")
}
