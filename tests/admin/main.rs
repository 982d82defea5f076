//! The admin address from the outside: routes, commands, metrics, and who may do what.
#![cfg(feature = "gateway")]

#[expect(dead_code, reason = "the daemon tests use more of it")]
#[path = "../daemon/process.rs"]
mod process;

mod access;
mod actors;
mod client;
mod commands;
mod documents;
mod health;
