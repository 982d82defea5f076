//! The runner's session, driven by hand: every input, every effect, and time moved by the test.

mod commands;
mod lifecycle;
mod link;
mod stage;
