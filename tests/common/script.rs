//! Scripts that a test runs.

use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

/// Writes a script by another process: one that a test beside this one forks just now
/// would hold the file open for writing, and whoever runs it then is told "Text file busy".
pub fn write_script(path: &Path, text: &str) {
    let mut shell = Command::new("/bin/sh")
        .args(["-c", "cat >\"$1\" && chmod 755 \"$1\"", "sh"])
        .arg(path)
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    let mut input = shell.stdin.take().unwrap();
    input.write_all(text.as_bytes()).unwrap();
    drop(input);
    assert!(shell.wait().unwrap().success());
}
