//! `smf/svc-postgrey refresh`: whom it sends a signal, and whom not.

use std::fs;
use std::process::Command;

use super::method::under_each_shell;
use super::{run, wait_until, write_script};

#[test]
fn refresh_reaches_the_master() {
    under_each_shell(|place| {
        let nobody = run(&mut place.command("refresh"));
        assert_eq!(nobody.status, 95);
        let script = format!(
            "#!/bin/sh\ncd '{}'; trap 'echo HUP >hup; exit 0' HUP; : >ready; n=0; \
             while [ $n -lt 300 ]; do sleep 0.1; n=$((n + 1)); done\n",
            place.dir.path().display()
        );
        let start = |name: &str| {
            fs::remove_file(place.path("ready")).ok();
            write_script(&place.path(name), &script);
            let child = Command::new(place.path(name)).spawn().unwrap();
            wait_until("not ready", || place.path("ready").exists());
            fs::write(place.path("pid"), format!("{}\n", child.id())).unwrap();
            child
        };
        // Whoever owns the file may have written any number there.
        let mut other = start("other");
        let done = run(&mut place.command("refresh"));
        let said = format!("process {} of {}", other.id(), place.path("pid").display());
        assert_eq!(done.status, 95, "{done:?}");
        assert_eq!(done.stderr, format!("svc-postgrey: {said} is no server\n"));
        assert!(other.try_wait().unwrap().is_none() && !place.path("hup").exists());
        other.kill().unwrap();
        other.wait().unwrap();
        let gone = run(&mut place.command("refresh"));
        assert_eq!(gone.status, 95, "{gone:?}");
        let mut master = start("server");
        // A bad property is said, and the server is left running.
        place.set("delay", "x");
        let done = run(&mut place.command("refresh"));
        assert_eq!(done.status, 0, "{done:?}");
        assert!(done.stderr.contains("config/delay: 'x' is no number"));
        assert!(done.stderr.contains("the next start will fail"));
        master.wait().unwrap();
        assert!(place.path("hup").exists());
    });
}
