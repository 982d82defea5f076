//! What fuzzing feeds: functions that take any bytes and panic when a promise is broken.
//!
//! Shared by the fuzzer (`fuzz/`) and by the test that replays its corpora.

#[cfg(feature = "gateway")]
mod actors_file;
mod choices;
mod gateway;
#[cfg(feature = "gateway")]
mod heads;
#[path = "../../protocol/tests/generated/oracle.rs"]
mod oracle;
#[cfg(feature = "gateway")]
mod routes;
mod session;
mod wire;
#[expect(dead_code, reason = "the tests of the gateway use the rest")]
#[path = "../gateway/world.rs"]
mod world;

#[cfg(feature = "gateway")]
pub use actors_file::actors_file;
pub use gateway::gateway;
#[cfg(feature = "gateway")]
pub use heads::heads;
#[cfg(feature = "gateway")]
pub use routes::routes;
pub use session::session;
pub use wire::{to_client, to_server};
