//! The project's files, and Rust code without what is not code.

use std::fs;
use std::path::{Path, PathBuf};

/// A Rust file: its code with comments, strings and everything for tests only replaced by spaces, line by line.
pub struct Source {
    /// From the root of the project.
    pub path: String,
    /// The module it is, from the root of its crate: `["session", "link"]`.
    pub module: Vec<String>,
    pub code: String,
}

impl Source {
    /// The lines of code, counted from one.
    pub fn lines(&self) -> impl Iterator<Item = (usize, &str)> {
        (1..).zip(self.code.lines())
    }

    /// Where a byte of the code stands, for a person.
    pub fn at(&self, byte: usize) -> String {
        format!("{}:{}", self.path, self.code[..byte].matches('\n').count() + 1)
    }
}

pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The code under a folder, without files that are for tests only.
pub fn sources(folder: &str) -> Vec<Source> {
    let rust = files(folder).into_iter().filter(|path| path.ends_with(".rs"));
    rust.filter_map(|path| {
        let module: Vec<String> = path
            .strip_prefix(folder)?
            .trim_start_matches('/')
            .trim_end_matches(".rs")
            .split('/')
            .map(str::to_owned)
            .collect();
        if module.iter().any(|name| name == "tests") {
            return None;
        }
        let module = if matches!(module[..], [ref only] if only == "lib" || only == "main") { vec![] } else { module };
        let code = without_tests(&without_comments_and_strings(&read(&path)));
        Some(Source { path, module, code })
    })
    .collect()
}

/// All files under a folder of the project, as paths from its root, in order.
pub fn files(folder: &str) -> Vec<String> {
    let mut found = Vec::new();
    walk(&root().join(folder), &mut found);
    let mut found: Vec<String> = found
        .into_iter()
        .map(|path| path.strip_prefix(root()).unwrap().to_str().unwrap().trim_start_matches('/').to_owned())
        .collect();
    found.sort();
    found
}

pub fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

fn walk(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display())) {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        if path.is_symlink() || BUILT.contains(&name.as_str()) {
            continue;
        }
        if path.is_dir() {
            walk(&path, found);
        } else {
            found.push(path);
        }
    }
}

/// Folders that are made, not written.
const BUILT: [&str; 5] = [".git", ".greenroom", "node_modules", "target", "__pycache__"];

fn without_comments_and_strings(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut code = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let len = comment(&bytes[at..]).or_else(|| string(bytes, at)).unwrap_or(0);
        if len == 0 {
            code.push(bytes[at]);
            at += 1;
        } else {
            blank(&bytes[at..at + len], &mut code);
            at += len;
        }
    }
    String::from_utf8(code).unwrap()
}

/// The length of the comment that begins here.
fn comment(bytes: &[u8]) -> Option<usize> {
    if bytes.starts_with(b"//") {
        return Some(bytes.iter().position(|&byte| byte == b'\n').unwrap_or(bytes.len()));
    }
    if !bytes.starts_with(b"/*") {
        return None;
    }
    let mut depth = 0;
    let mut at = 0;
    while at < bytes.len() {
        match &bytes[at..] {
            [b'/', b'*', ..] => (depth, at) = (depth + 1, at + 2),
            [b'*', b'/', ..] => (depth, at) = (depth - 1, at + 2),
            _ => at += 1,
        }
        if depth == 0 {
            break;
        }
    }
    Some(at)
}

/// The length of the string or character that begins here, its prefix included.
fn string(bytes: &[u8], at: usize) -> Option<usize> {
    let rest = &bytes[at..];
    let in_a_word = at > 0 && (bytes[at - 1].is_ascii_alphanumeric() || bytes[at - 1] == b'_');
    match rest {
        [b'"', ..] => quoted(rest, 1),
        [b'b' | b'c', b'"', ..] if !in_a_word => quoted(rest, 2),
        [b'r', b'"' | b'#', ..] if !in_a_word => raw(rest, 1),
        [b'b' | b'c', b'r', b'"' | b'#', ..] if !in_a_word => raw(rest, 2),
        [b'\'', b'\\', ..] => {
            // The escaped character itself may be a quote.
            rest[3..].iter().position(|&byte| byte == b'\'').map(|end| end + 4)
        }
        // A character, not a lifetime: it is closed again.
        [b'\'', ..] => {
            let character = std::str::from_utf8(&rest[1..rest.len().min(5)])
                .unwrap_or_else(|error| std::str::from_utf8(&rest[1..1 + error.valid_up_to()]).unwrap())
                .chars()
                .next()?;
            (rest.get(1 + character.len_utf8()) == Some(&b'\'')).then(|| character.len_utf8() + 2)
        }
        _ => None,
    }
}

fn quoted(rest: &[u8], mut at: usize) -> Option<usize> {
    while at < rest.len() {
        match rest[at] {
            b'\\' => at += 2,
            b'"' => return Some(at + 1),
            _ => at += 1,
        }
    }
    None
}

fn raw(rest: &[u8], prefix: usize) -> Option<usize> {
    let hashes = rest[prefix..].iter().take_while(|&&byte| byte == b'#').count();
    if rest.get(prefix + hashes) != Some(&b'"') {
        return None;
    }
    let end = [&b"\""[..], &b"#".repeat(hashes)].concat();
    let start = prefix + hashes + 1;
    rest[start..].windows(end.len()).position(|window| window == end).map(|found| start + found + end.len())
}

/// Blanks each item that is compiled for tests only.
fn without_tests(code: &str) -> String {
    let mut code = code.as_bytes().to_vec();
    let mut from = 0;
    while let Some(found) = find(&code[from..], b"#[cfg(test)]") {
        let start = from + found;
        let end = start + item(&code[start..]);
        let mut blanked = Vec::new();
        blank(&code[start..end], &mut blanked);
        code.splice(start..end, blanked);
        from = end;
    }
    String::from_utf8(code).unwrap()
}

/// The length of an item with its attributes: up to its `;` or its closing brace.
fn item(code: &[u8]) -> usize {
    let mut depth = 0;
    for (at, byte) in code.iter().enumerate() {
        match byte {
            b'{' | b'(' | b'[' => depth += 1,
            b')' | b']' => depth -= 1,
            b'}' => {
                depth -= 1;
                if depth == 0 {
                    return at + 1;
                }
            }
            b';' if depth == 0 => return at + 1,
            _ => {}
        }
    }
    code.len()
}

fn find(code: &[u8], wanted: &[u8]) -> Option<usize> {
    code.windows(wanted.len()).position(|window| window == wanted)
}

fn blank(bytes: &[u8], code: &mut Vec<u8>) {
    code.extend(bytes.iter().map(|&byte| if byte == b'\n' { b'\n' } else { b' ' }));
}

#[test]
fn what_is_not_code_is_blanked_and_lines_stay() {
    let text = r####"
use a; // .unwrap()
/* x /* y */ .unwrap() */ let b = "\".unwrap()"; let c = '"'; let d = r#"" .unwrap()"#;
fn f<'a>(x: &'a str) -> char { '\'' }
#[cfg(test)]
mod tests {
    fn g() { x.unwrap() }
}
#[cfg(test)]
use z::unwrap;
real.unwrap()
"####;
    let code = without_tests(&without_comments_and_strings(text));
    assert_eq!(code.matches(".unwrap()").count(), 1, "{code}");
    assert_eq!(code.lines().count(), text.lines().count());
    assert!(code.lines().last().unwrap().contains("real.unwrap()"));
    assert!(code.contains("fn f<'a>(x: &'a str) -> char"), "{code}");
}
