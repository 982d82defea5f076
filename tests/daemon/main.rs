//! The daemons from the outside: signals, exit codes, logs, and what `dev` prints.
#![cfg(feature = "gateway")]

mod caller;
mod double;
mod http;
mod process;

mod black_hole;
mod dev;
mod egress;
mod egress_file;
mod isolation;
mod reporter;
mod run;
mod service;
mod sockets;
mod streams;
