//! Ring 0: what the compiler does not check about how the project is laid out and what it says about itself.
//!
//! Every finding names file and line, and the rule that it breaks. The table of settings in the README is compared with
//! the code in `tests/cli.rs`.

#[cfg(feature = "daemon")]
mod documents;
mod files;
mod layers;
mod source;

/// Ends a test with all that was found, or well.
fn report(rule: &str, findings: Vec<String>) {
    assert!(findings.is_empty(), "{rule}\n\n  {}\n", findings.join("\n  "));
}
