//! postgreyctl(8): the administrator's tool.

use std::ffi::OsString;
use std::process::exit;

fn main() {
    let args: Vec<OsString> = std::env::args_os().skip(1).collect();
    exit(postgrey::admin::run(&args))
}
