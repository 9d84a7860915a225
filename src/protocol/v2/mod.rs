//! Protocol v2: binary frames, each of which stands alone. docs/PROTOCOL.md has them byte by byte.

mod frame;
mod listing;
pub mod payload;
pub mod pipe;
pub mod reply;
pub mod request;

use std::ops::RangeInclusive;

use super::Features;

/// The first bytes of a connection that speaks v2.
pub const MAGIC: [u8; 4] = [0x8f, b'P', b'T', b'F'];

/// The versions that are spoken here.
pub const VERSIONS: RangeInclusive<u8> = 2..=2;

/// Adds what a client begins a connection with, that can do so much or says no more.
pub fn encode_greeting(bytes: &mut Vec<u8>, features: Features) {
    bytes.extend_from_slice(&MAGIC);
    request::encode_hello(bytes, VERSIONS, features);
}
