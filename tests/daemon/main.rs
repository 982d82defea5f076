//! The daemons from the outside: signals, exit codes, logs, and what `dev` prints.
#![cfg(feature = "gateway")]

mod process;

mod dev;
mod run;
mod service;
mod streams;
