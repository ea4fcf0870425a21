//! postgreyreport(1): what greylisting does, told from the mail log.

use std::ffi::OsString;
use std::process::exit;

fn main() {
    let args: Vec<OsString> = std::env::args_os().skip(1).collect();
    exit(postgrey::report::run(&args))
}
