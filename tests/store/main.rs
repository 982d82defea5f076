//! The stores: what they mean, that they mean the same, and that nothing acknowledged is lost.
#![cfg(feature = "gateway")]

mod committer;
mod directory;
mod killed;
mod kv;
mod model;
mod places;
mod records;
mod retention;
