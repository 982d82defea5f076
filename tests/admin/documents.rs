//! What the documents say is what is there.

use std::fs;
use std::path::Path;

#[test]
fn the_operations_guide_has_the_table_of_metrics() {
    let guide = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/OPERATIONS.md")).unwrap();
    let table = greenroom::telemetry::metrics::markdown();
    assert!(guide.contains(&table), "put this between the metrics markers of docs/OPERATIONS.md:\n\n{table}");
}
