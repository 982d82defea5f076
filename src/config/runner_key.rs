//! The identity of a runner that was given none: a random id, kept where the runner keeps its state.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use data_encoding::HEXLOWER;

/// The key could not be read or kept.
#[derive(Debug, thiserror::Error)]
pub enum RunnerKeyError {
    /// The file system refused.
    #[error("the runner key cannot be kept in {}: {source}", path.display())]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The file is there and holds no key.
    #[error("{} holds no runner key; remove it to get a new one", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
    },
}

/// The key kept in this directory; made, with the directory, on first use. Of two processes that make one at the same
/// time both get the same.
///
/// # Errors
/// [`RunnerKeyError`].
pub fn load_or_create(data_dir: &Path) -> Result<String, RunnerKeyError> {
    let path = data_dir.join("runner-key");
    let io_error = |path: &Path| {
        let path = path.to_owned();
        move |source| RunnerKeyError::Io { path, source }
    };
    match fs::read_to_string(&path) {
        Ok(text) => return parse(&text).ok_or(RunnerKeyError::Damaged { path }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(source) => return Err(RunnerKeyError::Io { path, source }),
    }
    DirBuilder::new().recursive(true).mode(0o700).create(data_dir).map_err(io_error(data_dir))?;
    let key = HEXLOWER.encode(&rand::random::<[u8; 16]>());
    let draft = data_dir.join(format!("runner-key.{key}"));
    let kept = keep(&key, &draft, &path).and_then(|()| File::open(data_dir)?.sync_all());
    // Gone already when it became the file; otherwise a file nobody looks at.
    let _ = fs::remove_file(&draft);
    kept.map_err(io_error(&path))?;
    let text = fs::read_to_string(&path).map_err(io_error(&path))?;
    parse(&text).ok_or(RunnerKeyError::Damaged { path })
}

/// Puts a whole and durable file there, unless one is there already.
fn keep(key: &str, draft: &Path, path: &Path) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(draft)?;
    writeln!(file, "{key}")?;
    file.sync_all()?;
    match fs::hard_link(draft, path) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        // A file system without hard links.
        Err(_) => fs::rename(draft, path),
    }
}

fn parse(text: &str) -> Option<String> {
    let key = text.trim();
    (!key.is_empty() && key.len() <= 256 && key.bytes().all(|byte| byte.is_ascii_graphic())).then(|| key.to_owned())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_key_stays_the_same_and_is_private() {
        let dir = tempfile::tempdir().unwrap();
        let data_dir = dir.path().join("deep/data");
        let key = load_or_create(&data_dir).unwrap();
        assert_eq!(key.len(), 32);
        assert_eq!(load_or_create(&data_dir).unwrap(), key);
        let mode = fs::metadata(data_dir.join("runner-key")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert_eq!(fs::read_dir(&data_dir).unwrap().count(), 1);
    }

    #[test]
    fn two_that_make_a_key_at_once_agree() {
        let dir = tempfile::tempdir().unwrap();
        let keys: Vec<String> = std::thread::scope(|scope| {
            let tasks: Vec<_> = (0..8).map(|_| scope.spawn(|| load_or_create(dir.path()).unwrap())).collect();
            tasks.into_iter().map(|task| task.join().unwrap()).collect()
        });
        assert!(keys.iter().all(|key| *key == keys[0]), "{keys:?}");
    }

    #[test]
    fn a_damaged_key_is_not_replaced_silently() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("runner-key"), "\n").unwrap();
        let error = load_or_create(dir.path()).unwrap_err().to_string();
        assert!(error.contains("remove it to get a new one"), "{error}");
    }
}
