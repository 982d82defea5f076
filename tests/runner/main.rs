//! The runner as a program sees it, against a scripted gateway that does whatever the test wants: cuts, garbage,
//! silence, refusals. Everything runs in the test's own thread, so a test also sees every line that its runner logs.

mod actors;
mod gateway;
mod logs;

mod broken_wire;
mod connect;
mod drain;
mod handle;
mod pressure;
mod refused;
mod requests;
mod restart;
mod sockets;
mod storage;
