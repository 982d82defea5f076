//! The daemons from the outside: signals, exit codes, logs, and what `dev` prints.
#![cfg(feature = "daemon")]

mod process;
mod run;

#[cfg(feature = "gateway")]
mod dev;
