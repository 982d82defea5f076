//! The stores: what they mean, that they mean the same, and that nothing acknowledged is lost.
#![cfg(feature = "gateway")]

#[path = "store/committer.rs"]
mod committer;
#[path = "store/records.rs"]
mod records;
