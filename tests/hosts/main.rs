//! What every kind of host promises, checked for each kind alike, and what is special to each.

#![cfg(feature = "daemon")]

mod alarms;
mod behaviour;
mod child_process;
mod elsewhere;
mod events;
mod many;
mod stage;
mod websocket;
