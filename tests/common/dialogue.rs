//! The recorded dialogues of the original: reading them and comparing with
//! them. Their format is described in `tests/data/dialogues/README`.

use std::collections::BTreeMap;
use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};

/// One run of the original.
pub struct Dialogue {
    pub name: String,
    /// R137, R137T or R134T.
    pub reference: String,
    pub options: Vec<String>,
    pub path: PathBuf,
    /// The requests, each with its closing empty line.
    pub requests: Vec<Vec<u8>>,
    /// The answer to each request; `None` where none is due.
    pub replies: Vec<Option<Vec<u8>>>,
    /// The log lines of the requests, as plain octets.
    pub log: Vec<Vec<u8>>,
    /// True if the recording depends on the time of day.
    pub needs_clock: bool,
}

/// All dialogues, in the order of their names.
pub fn all() -> Vec<Dialogue> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/dialogues");
    let mut paths: Vec<PathBuf> = ["basic", "open"]
        .iter()
        .flat_map(|folder| fs::read_dir(root.join(folder)).unwrap())
        .map(|entry| entry.unwrap().path())
        .collect();
    paths.sort();
    paths.iter().map(|path| Dialogue::read(path)).collect()
}

/// The dialogues that do not depend on the time of day.
pub fn without_clock() -> Vec<Dialogue> {
    all()
        .into_iter()
        .filter(|dialogue| !dialogue.needs_clock)
        .collect()
}

fn read(path: &Path) -> Option<Vec<u8>> {
    if let Ok(content) = fs::read(path) {
        return Some(content);
    }
    let mut packed = path.as_os_str().to_owned();
    packed.push(".gz");
    let packed = fs::read(packed).ok()?;
    let mut content = Vec::new();
    flate2::read::GzDecoder::new(&packed[..])
        .read_to_end(&mut content)
        .unwrap();
    Some(content)
}

fn lines(content: &[u8]) -> Vec<Vec<u8>> {
    content
        .split(|&b| b == b'\n')
        .filter(|line| !line.is_empty())
        .map(<[u8]>::to_vec)
        .collect()
}

impl Dialogue {
    fn read(path: &Path) -> Dialogue {
        let file = |name: &str| read(&path.join(name)).unwrap_or_default();
        let text = |name: &str| String::from_utf8(file(name)).unwrap();
        let requests = split_requests(&file("requests"));
        let replies = file("replies");
        let mut replies = split_replies(&replies).into_iter();
        let replies = requests
            .iter()
            .map(|request| {
                expects_reply(request).then(|| replies.next().expect("a reply is missing"))
            })
            .collect();
        Dialogue {
            name: path.file_name().unwrap().to_str().unwrap().to_string(),
            reference: text("reference").trim().to_string(),
            options: text("options").lines().map(str::to_string).collect(),
            path: path.to_owned(),
            requests,
            replies,
            log: lines(&file("log"))
                .iter()
                .map(|line| decode_log(line))
                .collect(),
            needs_clock: path.join("clock").exists(),
        }
    }

    pub fn whitelist(&self, name: &str) -> Vec<u8> {
        read(&self.path.join(name)).unwrap_or_default()
    }

    /// The option that makes ours follow the recorded version.
    pub fn compat_option(&self) -> &'static str {
        match self.reference.as_str() {
            "R137" => "--compat=postgrey-1.37",
            "R134T" => "--compat=targrey-1.34",
            _ => "--compat=targrey-1.37",
        }
    }

    /// The records of a database after the run, escaped; `None` if the
    /// database was not in use.
    pub fn records(&self, database: &str) -> Option<BTreeMap<Vec<u8>, Vec<u8>>> {
        let content = read(&self.path.join("db").join(database))?;
        Some(
            lines(&content)
                .into_iter()
                .map(|line| {
                    let tab = line.iter().rposition(|&b| b == b'\t').unwrap();
                    (
                        line[..tab].to_vec(),
                        self.comparable(database, &line[tab + 1..]),
                    )
                })
                .collect(),
        )
    }

    /// A value without the fields that the recorded version does not have.
    pub fn comparable(&self, database: &str, value: &[u8]) -> Vec<u8> {
        let fields = match (database, self.reference.as_str()) {
            ("postgrey", "R137") => 2,
            ("postgrey", "R137T") => 3,
            _ => return value.to_vec(),
        };
        let kept: Vec<&[u8]> = value.split(|&b| b == b',').take(fields).collect();
        kept.join(&b","[..])
    }
}

fn split_requests(raw: &[u8]) -> Vec<Vec<u8>> {
    let mut requests = Vec::new();
    let mut request = Vec::new();
    for line in raw.split_inclusive(|&b| b == b'\n') {
        request.extend_from_slice(line);
        if matches!(line, b"\n" | b"\r\n") {
            requests.push(std::mem::take(&mut request));
        }
    }
    if !request.is_empty() {
        requests.push(request);
    }
    requests
}

fn split_replies(raw: &[u8]) -> Vec<Vec<u8>> {
    let text = raw.to_vec();
    let mut replies = Vec::new();
    let mut rest = &text[..];
    while let Some(end) = rest.windows(2).position(|pair| pair == b"\n\n") {
        replies.push(rest[..end + 2].to_vec());
        rest = &rest[end + 2..];
    }
    assert!(rest.is_empty(), "an unfinished reply was recorded");
    replies
}

/// True if the request is complete and of the only type that is answered.
fn expects_reply(request: &[u8]) -> bool {
    if !(request.ends_with(b"\n\n") || request.ends_with(b"\n\r\n")) {
        return false;
    }
    let mut kind: &[u8] = b"";
    for line in request.split(|&b| b == b'\n') {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        let start = line.iter().position(|&b| b != b'=').unwrap_or(line.len());
        if let Some(value) = line[start..].strip_prefix(b"request=") {
            kind = value;
        }
    }
    kind == b"smtpd_access_policy"
}

/// Undoes the encoding of the original's stderr: `%%` and `%XX`.
fn decode_log(line: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    let mut rest = line;
    while let Some((&first, tail)) = rest.split_first() {
        rest = tail;
        if first != b'%' {
            out.push(first);
        } else if let Some(tail) = rest.strip_prefix(b"%") {
            out.push(b'%');
            rest = tail;
        } else {
            let hex = std::str::from_utf8(&rest[..2]).unwrap();
            out.push(u8::from_str_radix(hex, 16).unwrap());
            rest = &rest[2..];
        }
    }
    out
}

/// The escaping of `db_dump -p`.
pub fn escape(text: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    for &octet in text {
        match octet {
            b'\\' => out.extend_from_slice(b"\\\\"),
            b' '..=b'~' => out.push(octet),
            _ => out.extend_from_slice(format!("\\{octet:02x}").as_bytes()),
        }
    }
    out
}

/// True for the lines that come from the handling of requests, without the
/// prefix of warnings.
pub fn is_policy_line(line: &[u8]) -> bool {
    let text = String::from_utf8_lossy(line);
    let action = text.find("action=").is_some_and(|at| {
        at == 0 || (text[..at].ends_with(": ") && !text[..at - 2].contains(char::is_whitespace))
    });
    action
        || [
            "whitelisted: ",
            "tarpit whitelisted: ",
            "correcting date for first seen",
            "unrecognized request type: '",
            "ignoring garbage: <",
            "attribute missing: ",
        ]
        .iter()
        .any(|start| text.starts_with(start))
}
