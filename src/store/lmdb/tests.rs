//! The store as a whole, in folders of its own.

use std::fs;
use std::ops::ControlFlow;

use super::*;

fn store(dir: &Path, purpose: Purpose) -> LmdbStore {
    LmdbStore::new(LmdbOptions {
        dir: dir.to_owned(),
        map_size: 1 << 20,
        purpose,
        patience: Duration::ZERO,
    })
}

fn put(store: &mut LmdbStore, key: &[u8]) -> Result<CommitReport, StoreError> {
    store.edit(&[], &mut |records| {
        records.put(Database::Clients, key, b"1,2")
    })
}

fn has(store: &mut LmdbStore, key: &[u8]) -> bool {
    let mut found = false;
    let scanned = store.scan(Database::Clients, key, None, &mut |entry| {
        found |= entry.key == key;
        ControlFlow::Continue(())
    });
    scanned.unwrap() && found
}

#[test]
fn a_commit_goes_into_the_database_that_is_there() {
    let folder = tempfile::tempdir().unwrap();
    let mut first = store(folder.path(), Purpose::WriteFlushed);
    assert!(!put(&mut first, b"a").unwrap().was_replaced);
    for name in ["data.mdb", "lock.mdb"] {
        fs::remove_file(folder.path().join(name)).unwrap();
    }
    let report = put(&mut first, b"b").unwrap();
    assert!(report.was_replaced && !report.has_grown);
    assert!(!has(&mut first, b"a") && has(&mut first, b"b"));
    assert!(!put(&mut first, b"c").unwrap().was_replaced);
}

#[test]
fn a_process_has_a_database_open_once() {
    let folder = tempfile::tempdir().unwrap();
    let mut first = store(folder.path(), Purpose::WriteFlushed);
    put(&mut first, b"a").unwrap();
    let mut second = store(folder.path(), Purpose::WriteFlushed);
    assert_eq!(second.prepare().unwrap_err().kind, ErrorKind::Other);
    first.close();
    second.close();
    assert!(has(&mut second, b"a"));
}

#[test]
fn a_full_map_grows_and_is_reported() {
    let folder = tempfile::tempdir().unwrap();
    let mut store = store(folder.path(), Purpose::WriteUnflushed);
    let grown = (0..20_000_u32).find(|number| {
        let report = put(&mut store, format!("{number:0400}").as_bytes());
        report.unwrap().has_grown
    });
    assert!(grown.is_some_and(|number| number > 500), "{grown:?}");
    assert!(has(&mut store, format!("{:0400}", 3).as_bytes()));
}

#[test]
fn the_mark_is_there_from_the_first_commit_to_the_end() {
    let folder = tempfile::tempdir().unwrap();
    for purpose in [Purpose::WriteFlushed, Purpose::WriteUnflushed] {
        let mut store = store(folder.path(), purpose);
        store.prepare().unwrap();
        assert!(!is_marked(folder.path()));
        for _ in 0..2 {
            put(&mut store, b"a").unwrap();
            assert_eq!(is_marked(folder.path()), purpose == Purpose::WriteUnflushed);
            store.end().unwrap();
            assert!(!is_marked(folder.path()));
        }
    }
}

#[test]
fn an_emptied_file_is_damage_and_one_that_was_not_begun_is_none() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("data.mdb"), "").unwrap();
    let mut reader = LmdbStore::new_reader(folder.path());
    assert_eq!(reader.prepare().unwrap_err().kind, ErrorKind::Busy);
    let mut writer = store(folder.path(), Purpose::WriteFlushed);
    put(&mut writer, b"a").unwrap();
    writer.close();
    fs::write(folder.path().join("data.mdb"), "").unwrap();
    assert_eq!(put(&mut writer, b"b").unwrap_err().kind, ErrorKind::Damage);
}

#[test]
fn nobody_else_may_have_it_open_when_it_is_replaced() {
    let folder = tempfile::tempdir().unwrap();
    let mut store = store(folder.path(), Purpose::WriteFlushed);
    put(&mut store, b"a").unwrap();
    let copy = folder.path().join("copy");
    let copied = |store: &mut LmdbStore| -> Result<PathBuf, StoreError> {
        store.copy_to(&fs::File::create(&copy).unwrap())?;
        Ok(copy.clone())
    };
    let before = Identity::of(folder.path());
    store.replace(copied).unwrap();
    assert_ne!(Identity::of(folder.path()), before);
    assert!(has(&mut store, b"a"));
    let refused = store.replace(|_| Err(StoreError::of_bug()));
    assert_eq!(refused, Err(StoreError::of_bug()));
    assert!(put(&mut store, b"b").is_ok() && has(&mut store, b"a"));
}
