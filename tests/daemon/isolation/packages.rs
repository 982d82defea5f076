//! Programs of Node.js find the packages above them, and nothing else there.

use std::fs;
use std::path::Path;

use super::DENIED;
use super::stage::{Plan, Stage};

#[tokio::test]
async fn a_program_finds_the_packages_above_it_and_reads_nothing_else_there() {
    let stage = Stage::of(Plan { a: "cwd = \"apps/web/src\"", prepare: monorepo, ..Plan::default() }).await;
    let node =
        |program: &str| format!("subprocess.run(['node', '-p', {program:?}], capture_output=True, text=True).stdout");
    assert_eq!(stage.eval("a", &node("require('near') + require('far')")).await, "near far\n");
    let imported = stage.eval("a", "subprocess.run(['node', 'main.js'], capture_output=True, text=True)").await;
    assert!(imported.contains("stdout='a module with far\\n'"), "{imported}");
    let made = "open('../node_modules/made', 'w')";
    for closed in ["open('../secret.js').read()", "open('../../../secret').read()", "os.listdir('..')", made] {
        assert_eq!(stage.eval("a", closed).await, DENIED, "{closed}");
    }
    stage.daemon.stop().await;
}

/// An app two directories below packages, one below its own.
fn monorepo(root: &Path) {
    let file = |path: &str, text: &str| {
        let path = root.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    };
    fs::create_dir_all(root.join("apps/web/src")).unwrap();
    fs::copy(root.join("evaluate.py"), root.join("apps/web/src/evaluate.py")).unwrap();
    file("apps/web/node_modules/near/index.js", "module.exports = 'near ';");
    file("node_modules/far/index.js", "module.exports = 'far';");
    file("apps/web/package.json", "{\"type\": \"module\"}");
    file("apps/web/src/main.js", "import far from 'far'; console.log('a module with ' + far);");
    file("apps/web/secret.js", "");
}
