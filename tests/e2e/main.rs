//! The gateway as a process that is killed at any moment: what it acknowledged is there when it comes back.
//!
//! The runner lives inside the test and dials again after every kill. `GREENROOM_KILLS` sets how often the gateway is
//! killed; `GREENROOM_KILLS=20 cargo test --test e2e` is the long proof.
#![cfg(feature = "gateway")]

mod actor;
mod chaos;
mod disk;
mod ends;
mod gateway;
mod http;
mod kill;
mod ledger;
mod load;
mod place;
mod storm;
