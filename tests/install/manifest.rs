//! `smf/postgrey.xml`, the manifest, against the DTD and against what the method
//! reads; `smf/postgrey.p5m`, the package.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::Command;

use regex::Regex;

use super::properties::{GOOD, WRONG};
use super::{file, find_or_skip, run, skip, text};

/// The properties that the method asks for, with the range of each number.
fn properties_of_the_method() -> BTreeMap<String, Option<(String, String)>> {
    let call = Regex::new(
        r"(?m)^\s+(addresses|paths|path|number|name|choice|switch|text)\s([a-z0-9_]+) \S+(?: (\d+) (\d+))?",
    )
    .unwrap();
    let own = [
        "socket_mode",
        "retry_window",
        "db_size",
        "store",
        "extra_options",
    ];
    let script = text("smf/svc-postgrey");
    let body = script.split("read_properties() {").nth(1).unwrap();
    let body = body.split_inclusive("\n}").next().unwrap();
    let mut found: BTreeMap<_, _> = call
        .captures_iter(body)
        .map(|c| {
            let range = c.get(3).map(|min| (min.as_str().into(), c[4].into()));
            (c[2].to_owned(), range)
        })
        .collect();
    for name in own {
        assert!(body.contains(&format!("\n        {name}\n")), "{name}");
        found.insert(name.to_owned(), None);
    }
    found
}

#[test]
fn the_manifest_describes_what_the_method_reads() {
    let manifest = text("smf/postgrey.xml");
    let name = Regex::new("name='([a-z0-9_]+)'").unwrap();
    let range = Regex::new(r"<range min='(\d+)' max='(\d+)'/>").unwrap();
    let described: BTreeMap<_, _> = manifest
        .split("<prop_pattern ")
        .skip(1)
        .map(|part| {
            let part = part.split("</prop_pattern>").next().unwrap();
            assert!(part.contains("<common_name>") && part.contains("<description>"));
            let range = range.captures(part).map(|c| (c[1].into(), c[2].into()));
            (name.captures(part).unwrap()[1].to_owned(), range)
        })
        .collect();
    let read = properties_of_the_method();
    assert_eq!(described, read);
    for property in read.keys() {
        let tested = |of: &str| of == property;
        assert!(GOOD.iter().any(|(p, ..)| tested(p)), "{property}");
        assert!(WRONG.iter().any(|(p, ..)| tested(p)), "{property}");
    }
}

#[test]
fn the_manifest_has_the_first_users_options() {
    let manifest = text("smf/postgrey.xml");
    for (name, kind, value) in [
        ("dbdir", "astring", "/var/spool/postfix/postgrey"),
        ("tarpit", "count", "125"),
        ("targrey", "boolean", "true"),
        ("log_tarpit", "boolean", "true"),
        ("retry_count", "count", "2"),
        ("delay", "count", "300"),
        ("max_age", "count", "7"),
        ("duration", "astring", "contract"),
    ] {
        let line = format!("<propval name='{name}' type='{kind}' value='{value}'/>");
        assert!(manifest.contains(&line), "{line}");
    }
    for part in [
        "value='127.0.0.1:60000'",
        "value='core,signal'",
        "_authorization'",
    ] {
        assert!(manifest.contains(part), "{part}");
    }
    assert!(!manifest.contains("privileges="));
}

#[test]
fn the_manifest_is_valid() {
    let Some(xmllint) = find_or_skip("xmllint", "smf/postgrey.xml") else {
        return;
    };
    let manifest = file("smf/postgrey.xml");
    let formed = run(Command::new(&xmllint)
        .args(["--noout", "--nonet"])
        .arg(&manifest));
    assert_eq!((formed.status, formed.stderr.as_str()), (0, ""));
    // The DTD is Solaris' own and not ours to ship.
    let dtd = std::env::var_os("POSTGREY_SMF_DTD").map(PathBuf::from);
    let dtd = dtd.unwrap_or_else(|| "/usr/share/lib/xml/dtd/service_bundle.dtd.1".into());
    if !dtd.is_file() {
        skip(
            "service_bundle.dtd.1 (POSTGREY_SMF_DTD)",
            "the manifest against it",
        );
        return;
    }
    let valid = run(Command::new(&xmllint)
        .args(["--noout", "--nonet", "--nowarning", "--dtdvalid"])
        .arg(&dtd)
        .arg(&manifest));
    assert_eq!((valid.status, valid.stderr.as_str()), (0, ""));
}

#[test]
fn the_package_has_user_directory_and_service() {
    let package = text("smf/postgrey.p5m");
    let action = Regex::new(
        r#"^(set|group|user|dir|file|license)( [^ ="]+)?( [a-z._-]+=("[^"]*"|[^ "]+))+$"#,
    );
    let action = action.unwrap();
    for line in package.lines() {
        let ignored = line.is_empty() || line.starts_with('#');
        assert!(ignored || action.is_match(line), "{line}");
    }
    for part in [
        "group groupname=postgrey gid=10023",
        "user username=postgrey uid=10023 group=postgrey home-dir=/var/spool/postfix/postgrey login-shell=/bin/false",
        "dir path=var/spool/postfix/postgrey owner=postgrey group=postgrey",
        "restart_fmri=svc:/system/manifest-import:default",
        "file path=lib/svc/method/svc-postgrey owner=root group=bin mode=0555",
    ] {
        assert!(package.contains(part), "{part}");
    }
    let version = format!("pkg:/network/postgrey@{}", env!("CARGO_PKG_VERSION"));
    assert!(package.contains(&version), "{version}");
}
