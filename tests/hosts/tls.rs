//! A cluster that speaks TLS, with its clients and among its nodes.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use crate::cluster::{ALONE, master_fails};
use crate::dialogues::play_all;
use crate::redis_server::{RedisCluster, has, make_certificates};
use crate::{alone, beside_others};

/// A directory with certificates that the servers' user may read.
fn certificates() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
    make_certificates(folder.path());
    folder
}

fn can(what: &str) -> bool {
    has("redis-server", what) && has("openssl", what)
}

#[test]
fn dialogues_through_two_servers_and_a_cluster_by_tls_differ_in_nothing() {
    if !can("dialogues with a cluster by TLS") {
        return;
    }
    let _beside = beside_others();
    let folder = certificates();
    let cluster = RedisCluster::start_by_tls(folder.path(), &[]);
    assert!(cluster.url().starts_with("rediss-cluster://"));
    let ca = folder.path().join("ca.pem");
    play_all(2, &cluster.url(), Some(&ca), 4);
}

#[test]
fn a_master_that_ends_costs_the_others_nothing_by_tls() {
    if !can("servers on a cluster by TLS, a master killed") {
        return;
    }
    let _alone = alone();
    let folder = certificates();
    let cluster = RedisCluster::start_by_tls(folder.path(), &ALONE);
    let ca = format!("--store-ca-file={}", folder.path().join("ca.pem").display());
    master_fails("was killed, by TLS", cluster, &[&ca], |cluster| {
        cluster.nodes[0].kill();
    });
}
