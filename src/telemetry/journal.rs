//! Records as the journal takes them: one datagram each, every field by its own name.
//!
//! The format is that of `systemd.journal-fields(7)` and the native journal protocol: `NAME=value` lines, and for a
//! value with a line break the name, a newline, its length as a little-endian u64 and the value as it is.

use std::ffi::OsStr;
use std::io;
use std::os::unix::net::UnixDatagram;
use std::path::Path;

use tracing::Level;

use crate::telemetry::layer::Record;

/// Where the journal of this machine takes records.
const SOCKET: &str = "/run/systemd/journal/socket";

/// A way to the journal.
#[derive(Debug)]
pub struct Journal {
    socket: UnixDatagram,
}

impl Journal {
    /// The journal, when this process's stderr goes there. `stream` is the variable `JOURNAL_STREAM`, which holds
    /// device and inode of what the service manager connected: stderr may have been redirected since.
    #[must_use]
    pub fn of_stderr(stream: Option<&OsStr>) -> Option<Self> {
        let named = stream?.to_str()?;
        let stderr = rustix::fs::fstat(io::stderr()).ok()?;
        (named == format!("{}:{}", stderr.st_dev, stderr.st_ino)).then_some(())?;
        Self::connect(Path::new(SOCKET)).ok()
    }

    /// The journal behind this socket.
    ///
    /// # Errors
    /// When nobody listens there.
    pub fn connect(socket: &Path) -> io::Result<Self> {
        let datagrams = UnixDatagram::unbound()?;
        datagrams.connect(socket)?;
        Ok(Journal { socket: datagrams })
    }

    /// Hands a record over. A journal that is not there any more loses it: there is nowhere else to say so.
    pub(super) fn send(&self, record: &Record<'_>) {
        let mut datagram = Vec::with_capacity(512);
        write(&mut datagram, record);
        let _ = self.socket.send(&datagram);
    }
}

/// Writes the fields of a record.
fn write(out: &mut Vec<u8>, record: &Record<'_>) {
    let priority = match *record.level {
        Level::ERROR => "3",
        Level::WARN => "4",
        Level::INFO => "6",
        _ => "7",
    };
    field(out, "PRIORITY", priority);
    field(out, "SYSLOG_IDENTIFIER", "greenroom");
    field(out, "TARGET", record.target);
    field(out, "MESSAGE", &message(record));
    for (name, value) in record.fields.iter() {
        field(out, &format!("GREENROOM_{}", name.to_ascii_uppercase()), &value.to_string());
    }
}

/// The message with its fields: `journalctl` shows nothing else unless asked.
fn message(record: &Record<'_>) -> String {
    let mut text = String::new();
    super::text::message(&mut text, record);
    text
}

fn field(out: &mut Vec<u8>, name: &str, value: &str) {
    // Names have at most 64 letters, digits and underscores; others the journal would drop with all of the record.
    let name = name.bytes().map(|byte| if byte.is_ascii_alphanumeric() { byte } else { b'_' }).take(64);
    out.extend(name);
    let value = clip(value);
    if value.contains('\n') {
        out.push(b'\n');
        out.extend((value.len() as u64).to_le_bytes());
    } else {
        out.push(b'=');
    }
    out.extend(value.as_bytes());
    out.push(b'\n');
}

/// Keeps a record within what one datagram carries.
fn clip(value: &str) -> &str {
    let mut end = value.len().min(VALUE_MAX);
    while !value.is_char_boundary(end) {
        end -= 1;
    }
    &value[..end]
}

/// The longest value of a field, in bytes: a datagram on a Unix socket holds about 200 KiB by default.
const VALUE_MAX: usize = 32 * 1024;

#[cfg(test)]
mod tests {
    use tracing::warn;
    use tracing_subscriber::layer::SubscriberExt;

    use super::*;
    use crate::telemetry::{Form, LogLayer};

    #[test]
    fn a_record_arrives_with_all_its_fields() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("socket");
        let journal = UnixDatagram::bind(&path).unwrap();
        let layer = LogLayer::new(Form::Journal(Journal::connect(&path).unwrap()), std::io::sink);
        let subscriber = tracing_subscriber::registry().with(layer);
        tracing::subscriber::with_default(subscriber, || {
            warn!(target: "greenroom::host", line = "two\nlines", actor_id = "a1", count = 3, "actor wrote");
        });
        let mut datagram = [0; 4096];
        let length = journal.recv(&mut datagram).unwrap();
        let datagram = &datagram[..length];
        let has = |part: &[u8]| datagram.windows(part.len()).any(|window| window == part);
        assert!(has(b"PRIORITY=4\n"));
        assert!(has(b"SYSLOG_IDENTIFIER=greenroom\n"));
        assert!(has(b"MESSAGE=actor wrote line=\"two\\nlines\" actor_id=a1 count=3\n"));
        assert!(has(b"GREENROOM_ACTOR_ID=a1\n"));
        assert!(has(b"GREENROOM_COUNT=3\n"));
        assert!(has(b"GREENROOM_LINE\n\x09\0\0\0\0\0\0\0two\nlines\n"));
    }

    #[test]
    fn only_a_stderr_that_is_the_journals_goes_there() {
        assert!(Journal::of_stderr(None).is_none());
        assert!(Journal::of_stderr(Some(OsStr::new("1:2"))).is_none());
    }
}
