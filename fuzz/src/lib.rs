//! The targets, from where the normal tests replay the corpora: a finding is a file there and fails both.

#[path = "../../tests/corpus/targets.rs"]
pub mod targets;
