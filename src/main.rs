//! postgrey(8): from the command line to the server, or to what else was asked
//! for, and to the exit status.

use std::ffi::OsString;
use std::io::{self, Write};
use std::os::unix::process::CommandExt;
use std::process::{Command, exit};

use postgrey::config::settings::Settings;
use postgrey::config::{self, Invocation};
use postgrey::server::check;

fn main() {
    let args: Vec<OsString> = std::env::args_os().skip(1).collect();
    exit(match config::parse(&args) {
        Ok(Invocation::Serve(settings)) => postgrey::server::run(&settings),
        Ok(Invocation::Help) => print(config::help_text().as_bytes()),
        Ok(Invocation::Version) => print(format!("postgrey {}\n", config::VERSION).as_bytes()),
        Ok(Invocation::Man) => show_manual(),
        Ok(Invocation::Check {
            settings,
            problems,
            notes,
        }) => say_findings(&settings, problems, notes),
        Ok(Invocation::PrintConfig(settings)) => {
            if let Some(ignored) = &settings.ignored_words {
                complain(&format!("WARNING: {ignored}"));
            }
            print(&config::print_config(&settings))
        }
        Err(error) => {
            if is_spawned(&args) {
                postgrey::server::report_mistakes(&error.message);
            } else {
                complain(&error.message);
            }
            error.exit_code
        }
    })
}

/// Under spawn(8) standard error is the client's connection: nothing may be
/// written there, however wrong the other options are.
fn is_spawned(args: &[OsString]) -> bool {
    args.iter().any(|arg| arg == "--spawn" || arg == "-spawn")
}

/// Writes to standard output; 1 if that fails, as for `--help >/dev/full`.
fn print(text: &[u8]) -> i32 {
    let mut stdout = io::stdout();
    match stdout.write_all(text).and_then(|()| stdout.flush()) {
        Ok(()) => 0,
        Err(error) => {
            complain(&format!("can't write to standard output: {error}"));
            1
        }
    }
}

/// Writes a line to standard error, and does without if that is closed.
fn complain(line: &str) {
    let _ = writeln!(io::stderr(), "{line}");
}

fn say_findings(settings: &Settings, mut problems: Vec<String>, mut notes: Vec<String>) -> i32 {
    let findings = check::check(settings);
    problems.extend(findings.problems);
    notes.extend(findings.notes);
    for problem in &problems {
        complain(problem);
    }
    for note in &notes {
        complain(&format!("note: {note}"));
    }
    i32::from(!problems.is_empty())
}

/// Becomes man(1); comes back only if there is none.
fn show_manual() -> i32 {
    let error = Command::new("man").arg("postgrey").exec();
    complain(&format!("can't run man: {error}"));
    2
}
