//! What fuzzing feeds: functions that take any bytes and panic when a promise is broken.
//!
//! Shared by the fuzzer (`fuzz/`) and by the test that replays its corpora.

mod actors_file;
mod choices;
mod gateway;
mod heads;
#[path = "../../protocol/tests/generated/oracle.rs"]
mod oracle;
mod routes;
mod session;
mod wire;
#[expect(dead_code, reason = "the tests of the gateway use the rest")]
#[path = "../gateway/world.rs"]
mod world;

pub use actors_file::actors_file;
pub use gateway::gateway;
pub use heads::heads;
pub use routes::routes;
pub use session::session;
pub use wire::{to_client, to_server};
