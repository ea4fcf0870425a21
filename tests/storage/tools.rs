//! The programs with `preload.c` in them, and sessions as spawn(8) starts them.

use std::fs;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use tempfile::TempDir;

use crate::server::{
    Client, PROGRAM, Spawned, common_options, is_root, nobody, preloaded, program_for_all,
    test_dir, test_dir_in,
};

/// Programs and library where any user may use them.
pub struct Tools {
    folder: TempDir,
}

impl Tools {
    /// `None` without a C compiler.
    pub fn build() -> Option<Tools> {
        let folder = test_dir();
        preloaded("tests/storage/preload.c", folder.path())?;
        program_for_all(folder.path());
        Some(Tools { folder })
    }

    fn preload(&self) -> PathBuf {
        self.folder.path().join("preload.so")
    }

    /// A server.
    pub fn server(&self) -> Command {
        let mut command = Command::new(PROGRAM);
        command.env("LD_PRELOAD", self.preload());
        command
    }

    /// A session in this directory of a test, as the user of the server.
    pub fn session(
        &self,
        dir: &Path,
        options: &[&str],
        environment: &[(&str, PathBuf)],
    ) -> Spawned {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let mut command = Command::new(self.folder.path().join("run/postgrey"));
        command
            .arg("--spawn")
            .args(common_options(dir))
            .args(options)
            .env("LD_PRELOAD", self.preload())
            .envs(environment.iter().cloned());
        if is_root() {
            command.uid(nobody().uid.as_raw());
        }
        let end = || Stdio::from(OwnedFd::from(theirs.try_clone().unwrap()));
        let child = command.stdin(end()).stdout(end()).stderr(end()).spawn();
        Spawned {
            client: Client::of(ours),
            child: child.unwrap(),
        }
    }

    /// postgreyctl on the database in this directory of a test.
    pub fn ctl(&self, dir: &Path, words: &[&str], environment: &[(&str, PathBuf)]) -> Output {
        Command::new(env!("CARGO_BIN_EXE_postgreyctl"))
            .arg(format!("--dbdir={}", dir.join("db").display()))
            .args(words)
            .env("LD_PRELOAD", self.preload())
            .envs(environment.iter().cloned())
            .stdin(Stdio::null())
            .output()
            .unwrap()
    }
}

/// A directory for a test in memory, if there is such a file system: what is
/// tested is no disk's work.
pub fn memory_dir() -> TempDir {
    test_dir_in(Path::new("/dev/shm"))
}

/// The two numbers that `preload.c` looks at.
pub struct Control {
    pub path: PathBuf,
    file: fs::File,
}

impl Control {
    /// In this directory of a test; nobody is killed yet.
    pub fn new(dir: &Path) -> Control {
        let path = dir.join("control");
        fs::write(&path, [0; 16]).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o666)).unwrap();
        let file = fs::File::options().read(true).write(true).open(&path);
        Control {
            path,
            file: file.unwrap(),
        }
    }

    /// Counts from now on, and kills at this call; 0: never.
    pub fn arm(&self, kill_at: u64) {
        let numbers = [kill_at.to_ne_bytes(), [0; 8]].concat();
        self.file.write_all_at(&numbers, 0).unwrap();
    }

    /// The calls that were counted.
    pub fn count(&self) -> u64 {
        let mut number = [0; 8];
        self.file.read_exact_at(&mut number, 8).unwrap();
        u64::from_ne_bytes(number)
    }
}
