//! What a control plane is told of this runner, and how what it is told next is made of what it has not taken yet.
//!
//! A report is a [`Patch`] of a [`WorkerState`]. [`Delivery`] decides when which patch is sent: one request is in
//! flight, and one merged patch waits. [`ActorMetadata`] is what actors add to the state.
//!
//! Merging never loses anything: the state after one merged patch is the state after its parts, one by one. Sending
//! the same patch again changes nothing, so a request whose outcome nobody knows is simply sent again, together with
//! what came since.

mod delivery;
mod metadata;
mod state;

pub use delivery::{Answer, Delivery, Effect, Input, Pace};
pub use metadata::{ActorMetadata, MetadataRefusal, RESERVED};
pub use state::{Malformed, Patch, WorkerState};

#[cfg(test)]
mod tests;
