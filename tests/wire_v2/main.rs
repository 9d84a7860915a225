//! The receiver's side of protocol v2, frame by frame, good and bad, over raw sockets.
#![allow(clippy::unwrap_used, reason = "a test may fail")]
#![allow(clippy::disallowed_methods, reason = "a test is no peer")]
#[path = "../common/mod.rs"]
mod common;

mod client;
mod content;
mod folders;
mod frames;
mod listing;
mod login;
mod places;
mod reading;
mod rights;
mod slow;
mod stop;
