//! Tokens: from files, credentials or a variable, never from a command line, never printed.

use std::fs;
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use secrecy::SecretString;

/// Who may read a token file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Privacy {
    /// Only its owner: mode 0600 or less.
    Owner,
    /// Whoever the system lets: the directory of systemd credentials is protected as a whole.
    System,
}

/// A file with a token, which is read again at every use: whoever replaces the file has replaced the token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SecretFile {
    path: PathBuf,
    privacy: Privacy,
}

impl SecretFile {
    /// A file that holds a token now, and that only its owner can read.
    ///
    /// # Errors
    /// What is wrong with the file. The text never contains any of the file's content.
    pub fn private(path: PathBuf) -> Result<Self, String> {
        Self::new(path, Privacy::Owner)
    }

    /// A file that holds a token now.
    ///
    /// # Errors
    /// What is wrong with the file. The text never contains any of the file's content.
    pub(crate) fn new(path: PathBuf, privacy: Privacy) -> Result<Self, String> {
        read(&path, privacy)?;
        Ok(SecretFile { path, privacy })
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The token in it.
    ///
    /// # Errors
    /// What is wrong with the file, with its path. The text never contains any of the file's content.
    pub fn read(&self) -> Result<SecretString, String> {
        read(&self.path, self.privacy).map_err(|error| format!("{}: {error}", self.path.display()))
    }
}

/// Reads a token from a file; white space around it does not belong to it.
///
/// # Errors
/// What is wrong with the file. The text never contains any of the file's content.
pub(crate) fn read(path: &Path, privacy: Privacy) -> Result<SecretString, String> {
    let unreadable = |error: std::io::Error| format!("cannot be read: {error}");
    // Before it is opened: opening a named pipe may wait for ever.
    if !fs::metadata(path).map_err(unreadable)?.is_file() {
        return Err("expected a regular file".to_owned());
    }
    let file = fs::File::open(path).map_err(unreadable)?;
    let mode = file.metadata().map_err(unreadable)?.permissions().mode() & 0o7777;
    if privacy == Privacy::Owner && mode & 0o077 != 0 {
        return Err(format!("others can read this file (mode {mode:04o}): run `chmod 600 {}`", path.display()));
    }
    let mut content = String::new();
    // A few bytes more than a token may have, for the white space around it.
    file.take(TOKEN_MAX + 16).read_to_string(&mut content).map_err(|_| "expected text".to_owned())?;
    parse(content.trim())
}

/// Checks a token: it goes into a header and a subprotocol as it is.
///
/// # Errors
/// What was expected; never any of the token itself.
pub(crate) fn parse(text: &str) -> Result<SecretString, String> {
    if text.is_empty() {
        return Err("expected a token, found nothing".to_owned());
    }
    if text.len() as u64 > TOKEN_MAX {
        return Err(format!("expected a token of at most {TOKEN_MAX} bytes"));
    }
    if !text.bytes().all(|byte| byte.is_ascii_graphic() && byte != b',') {
        return Err(
            "expected a token without spaces, commas, control or non-ASCII characters: it is sent in a header as it is"
                .to_owned(),
        );
    }
    Ok(SecretString::from(text))
}

/// The longest token, in bytes: servers commonly take headers of 8 KiB in all.
const TOKEN_MAX: u64 = 4096;

#[cfg(test)]
mod tests {
    use secrecy::ExposeSecret;

    use super::*;

    #[test]
    fn a_token_may_not_break_the_header_it_is_sent_in() {
        assert!(parse("abc.DEF-123_~+/=").is_ok());
        for wrong in ["", "a b", "a,b", "a\nb", "a\u{7f}", "tökén", &"x".repeat(4097)] {
            assert!(parse(wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn only_the_owner_may_be_able_to_read_a_token_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("token");
        fs::write(&path, "secret\n").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        let error = read(&path, Privacy::Owner).unwrap_err();
        assert!(error.contains("chmod 600") && error.contains("0644"), "{error}");
        assert!(read(&path, Privacy::System).is_ok());
        fs::set_permissions(&path, fs::Permissions::from_mode(0o400)).unwrap();
        assert_eq!(read(&path, Privacy::Owner).unwrap().expose_secret(), "secret");
    }

    #[test]
    fn a_token_file_that_is_none_says_why() {
        let dir = tempfile::tempdir().unwrap();
        assert!(read(&dir.path().join("missing"), Privacy::Owner).unwrap_err().contains("cannot be read"));
        assert!(read(dir.path(), Privacy::Owner).unwrap_err().contains("regular file"));
    }
}
