//! The runner's session, driven by hand: every input, every effect, and time moved by the test.

mod commands;
mod drain;
mod events;
mod hibernation;
mod kv;
mod lifecycle;
mod link;
mod model;
mod stage;
mod streaming;
mod tunnel;
