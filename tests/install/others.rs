//! `Makefile`: what it does with the scripts of others, and what it says.

use std::fs;

use super::makefile::{built, make, makers, makes};

/// A distribution's script and unit are moved aside, with a word; our own are
/// replaced.
#[test]
fn scripts_of_others_are_moved_aside() {
    let built = built(&[]);
    for maker in makers() {
        let root = tempfile::tempdir().unwrap();
        for (target, name, theirs) in [
            (
                "install-rc",
                "etc/init.d/postgrey",
                "#!/bin/sh\n# of a distribution\n",
            ),
            (
                "install-systemd",
                "lib/systemd/system/postgrey.service",
                "[Unit]\nDescription=of a distribution\n",
            ),
        ] {
            let path = root.path().join(name);
            let old = root.path().join(format!("{name}.old"));
            let put = || {
                fs::create_dir_all(path.parent().unwrap()).unwrap();
                fs::write(&path, theirs).unwrap();
            };
            put();
            let said = makes(&maker, built.path(), root.path(), &[target]);
            let shown = path.display();
            let word = format!("moved     {shown} to {shown}.old: it was not ours\n");
            assert!(said.contains(&word), "{said}");
            assert_eq!(fs::read_to_string(&old).unwrap(), theirs);
            let ours = fs::read_to_string(&path).unwrap();
            assert!(ours.contains("SPDX-License-Identifier"));
            // Again, and with changes of somebody in ours.
            fs::write(&path, format!("{ours}# more\n")).unwrap();
            let said = makes(&maker, built.path(), root.path(), &[target]);
            assert!(!said.contains("moved"), "{said}");
            assert_eq!(fs::read_to_string(&path).unwrap(), ours);
            // Nothing is lost where one has been moved aside before.
            put();
            let done = make(&maker, built.path(), root.path(), &[target]);
            assert_ne!(done.status, 0, "{done:?}");
            assert!(done.stderr.contains(".old is there already"), "{done:?}");
            assert_eq!(fs::read_to_string(&path).unwrap(), theirs);
        }
    }
}

/// The options that are installed have --targrey: both lists are shown.
#[test]
fn what_is_said_next_shows_both_restrictions() {
    let built = built(&[]);
    for maker in makers() {
        let root = tempfile::tempdir().unwrap();
        let said = makes(&maker, built.path(), root.path(), &["install"]);
        let next = said.split_once("Next, as root").unwrap().1;
        let lists: Vec<&str> = next.split("    smtpd_").skip(1).collect();
        for (list, name) in lists.iter().zip(["recipient", "data"]) {
            let list = list.split_once("}\n").unwrap().0;
            assert!(
                list.starts_with(&format!("{name}_restrictions = ")),
                "{next}"
            );
            assert!(list.contains("check_policy_service { inet:127.0.0.1:60000,"));
        }
        assert_eq!(lists.len(), 2, "{next}");
        assert!(lists[0].find("reject_unauth_destination") < lists[0].find("check_policy"));
    }
}
