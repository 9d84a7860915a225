//! What `send` and `recv` share: the flags of a transfer, and how one is run.

pub(crate) mod compress;
pub(crate) mod drive;
pub(crate) mod folders;
pub(crate) mod manifest;
pub(crate) mod place;
pub(crate) mod reach;
pub(crate) mod routes;
pub(crate) mod secrets;
pub(crate) mod select;
pub(crate) mod transfer;
pub(crate) mod who;
pub(crate) mod wire;
