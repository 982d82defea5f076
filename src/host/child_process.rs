//! Actors as child processes: any language, one process per actor life.

mod settings;

pub use settings::{Listen, START_TIMEOUT, STOP_GRACE, Settings, WebSocketMode};
