//! The recorded dialogues of the original with records in Redis: through one server, and
//! through two of different directories.

use std::collections::BTreeMap;
use std::fs;
use std::ops::ControlFlow;
use std::path::Path;

use postgrey::policy::record::Database;
use postgrey::store::Store;

use crate::dialogue::{self, Dialogue};
use crate::redis_server::{RedisCluster, RedisServer, has};
use crate::server::{Client, Server, tell, test_dir};
use crate::{beside_others, start, store_by_tls};

/// The whitelists of a dialogue as files, and the options that name them.
fn write_whitelists(dialogue: &Dialogue, folder: &Path) -> [String; 2] {
    [
        ("clients", "whitelist_clients"),
        ("recipients", "whitelist_recipients"),
    ]
    .map(|(option, name)| {
        let path = folder.join(name);
        fs::write(&path, dialogue.whitelist(name)).unwrap();
        format!("--whitelist-{option}={}", path.display())
    })
}

/// Plays a dialogue to so many servers and says what differs. `ca` is the file of those
/// who have signed the certificates of Redis.
fn play(
    dialogue: &Dialogue,
    count: usize,
    url: &str,
    ca: Option<&Path>,
    prefix: &str,
) -> Vec<String> {
    let folder = test_dir();
    let [clients, recipients] = write_whitelists(dialogue, folder.path());
    let (store_option, prefix_option) =
        (format!("--store={url}"), format!("--store-prefix={prefix}"));
    let mut options: Vec<&str> = dialogue.options.iter().map(String::as_str).collect();
    options.extend([
        dialogue.compat_option(),
        &clients,
        &recipients,
        &store_option,
        &prefix_option,
    ]);
    let ca_option = ca.map(|path| format!("--store-ca-file={}", path.display()));
    options.extend(ca_option.as_deref());
    let mut servers = start(count, folder.path(), &options);
    let mut connections: Vec<Client> = servers.iter().map(Server::connect).collect();
    let is_exim = dialogue.options.iter().any(|option| option == "--exim");
    let mut differences = Vec::new();
    let mut differs = |what: String, found: &[u8], expected: &[u8]| {
        if found != expected {
            let [found, expected] = [found, expected].map(String::from_utf8_lossy);
            differences.push(format!(
                "{} {what}: {found:?}, not {expected:?}",
                dialogue.name
            ));
        }
    };
    let mut turn = 0;
    for (index, (text, expected)) in dialogue.requests.iter().zip(&dialogue.replies).enumerate() {
        // The last ten mails that have got their header each host knows for itself:
        // what depends on them goes to one.
        let has_instance = |line: &[u8]| line.starts_with(b"instance");
        let place = match text.split(|&octet| octet == b'\n').any(has_instance) {
            true => 0,
            false => turn % count,
        };
        connections[place].send(text);
        let Some(expected) = expected else { continue };
        turn += 1;
        let reply = connections[place].reply().unwrap_or_default();
        let reply = format!("action={reply}\n\n");
        differs(format!("request {index}"), reply.as_bytes(), expected);
        if is_exim {
            connections[place] = servers[place].connect();
        }
    }
    drop(connections);
    for server in &mut servers {
        assert!(server.stop().success(), "{}", server.log_text());
        assert!(
            !server.log_text().contains("ungreylisted"),
            "{}",
            server.log_text()
        );
    }
    let mut store = store_by_tls(url, ca, prefix);
    for (name, database) in [
        ("postgrey", Database::Greylist),
        ("postgrey_clients", Database::Clients),
        ("tarpit_clients", Database::Tarpit),
    ] {
        let mut found = BTreeMap::new();
        let at_end = store.scan(database, b"", None, &mut |entry| {
            let value = dialogue.comparable(name, &dialogue::escape(entry.value));
            found.insert(dialogue::escape(entry.key), value);
            ControlFlow::Continue(())
        });
        assert!(at_end.unwrap());
        let text = |records: BTreeMap<Vec<u8>, Vec<u8>>| {
            let lines = records
                .into_iter()
                .map(|(key, value)| [&key[..], &value].join(&b' '));
            lines.collect::<Vec<_>>().join(&b'\n')
        };
        let expected = dialogue.records(name).unwrap_or_default();
        differs(name.into(), &text(found), &text(expected));
    }
    differences
}

/// Plays each dialogue, or each so many.
pub fn play_all(count: usize, url: &str, ca: Option<&Path>, each: usize) {
    let dialogues = dialogue::without_clock();
    assert_eq!(dialogues.len(), 54);
    let mut differences = Vec::new();
    let chosen = dialogues.iter().enumerate().step_by(each);
    for (index, dialogue) in chosen.clone() {
        differences.extend(play(dialogue, count, url, ca, &format!("p{count}.{index}")));
    }
    assert!(differences.is_empty(), "{}", differences.join("\n"));
    tell(&format!("replayed: {} dialogues", chosen.len()));
}

#[test]
fn dialogues_through_one_server_and_two_differ_in_nothing() {
    if !has("redis-server", "dialogues with Redis") {
        return;
    }
    let _beside = beside_others();
    let redis = RedisServer::start(&[]);
    play_all(1, &redis.unix_url(), None, 1);
    play_all(2, &redis.url(), None, 1);
}

#[test]
fn dialogues_through_two_servers_and_a_cluster_differ_in_nothing() {
    if !has("redis-server", "dialogues with a cluster") {
        return;
    }
    let _beside = beside_others();
    let cluster = RedisCluster::start(&[]);
    play_all(2, &cluster.url(), None, 1);
}
