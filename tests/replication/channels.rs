//! Full syncs over two connections, in the dialects of Redis and of Valkey, with a write load while
//! the snapshot is sent, and with one of the connections cut.

use crate::load;
use crate::nodes::{Logs, Node, ServerKind, wait_for, wait_in_step, wait_same};

/// The connection of a full sync that is cut while the snapshot is sent.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Cut {
    Neither,
    /// The connection with the replication stream is cut.
    Main,
    /// The connection with the snapshot is cut.
    Snapshot,
    /// The connection with the replication stream is cut while the replica loads the snapshot.
    MainWhileLoading,
    /// No connection is cut, but the replica may collect only a part of the stream meanwhile.
    AtTheLimit,
}

/// All pairs of servers that can sync over two connections, with each connection cut and none.
pub fn all() -> Vec<(ServerKind, ServerKind, Cut)> {
    let mut all = Vec::new();
    for peer in [
        ServerKind::Aeris,
        ServerKind::Redis8,
        ServerKind::Valkey8,
        ServerKind::Valkey9,
    ] {
        for cut in [Cut::Neither, Cut::Main, Cut::Snapshot] {
            all.push((ServerKind::Aeris, peer, cut));
            if peer != ServerKind::Aeris {
                all.push((peer, ServerKind::Aeris, cut));
            }
        }
        all.push((peer, ServerKind::Aeris, Cut::MainWhileLoading));
        all.push((peer, ServerKind::Aeris, Cut::AtTheLimit));
    }
    all
}

fn start(kind: ServerKind, other: ServerKind) -> Option<Node> {
    let mut args = vec!["--repl-diskless-sync", "yes"];
    if kind != ServerKind::Redis8 {
        args.extend(["--dual-channel-replication-enabled", "yes"]);
    }
    if kind == ServerKind::Redis8 || kind == ServerKind::Aeris {
        args.extend(["--repl-rdb-channel", "yes"]);
    }
    if kind == ServerKind::Aeris && other == ServerKind::Valkey9 {
        // Valkey's digests do not show which fields have a time to live.
        args.extend(["--extended-redis-compatibility", "no"]);
    }
    Node::start(kind, &args)
}

/// The ids of a replica's two clients in the primary: first that of the stream, which connected
/// first.
fn connections(primary: &mut Node) -> Option<[u64; 2]> {
    let list = primary.line("CLIENT LIST TYPE replica");
    let id = |line: &str| line.strip_prefix("id=")?.split(' ').next()?.parse().ok();
    let mut ids: Vec<u64> = list.lines().filter_map(id).collect();
    ids.sort_unstable();
    ids.try_into().ok()
}

/// Runs a full sync of a replica over two connections, if both servers are installed.
pub fn run(primary: ServerKind, replica: ServerKind, cut: Cut) {
    let (Some(mut primary), Some(mut replica)) = (start(primary, replica), start(replica, primary))
    else {
        return;
    };
    let _logs = Logs::of(&[&primary, &replica]);
    let field_ttls = primary.kind.has_field_ttls() && replica.kind.has_field_ttls();
    load::run(primary.conn(), 1, 3, field_ttls);
    match cut {
        Cut::MainWhileLoading => {
            replica.ok("CONFIG SET key-load-delay 5000 loading-process-events-interval-bytes 1024");
        }
        Cut::AtTheLimit => replica.ok("CONFIG SET replica-full-sync-buffer-limit 20000"),
        _ => {}
    }
    // The child that saves the snapshot keeps this delay until it ends.
    primary.ok("CONFIG SET rdb-key-save-delay 5000");
    replica.follow(&primary);
    let mut ids = None;
    wait_for("there are two connections", || {
        ids = connections(&mut primary);
        ids.is_some()
    });
    primary.ok("CONFIG SET rdb-key-save-delay 0");
    load::run(primary.conn(), 2, 2, field_ttls);
    let [main, snapshot] = ids.expect("two connections");
    let killed = match cut {
        Cut::Neither | Cut::AtTheLimit => None,
        Cut::Main => Some(main),
        Cut::MainWhileLoading => {
            wait_for("the replica loads", || replica.number("loading") == 1);
            Some(main)
        }
        Cut::Snapshot => Some(snapshot),
    };
    if let Some(id) = killed {
        assert_eq!(primary.line(&format!("CLIENT KILL ID {id}")), ":1\r\n");
        load::run(primary.conn(), 3, 1, field_ttls);
        if cut == Cut::MainWhileLoading {
            replica.ok("CONFIG SET key-load-delay 0");
        }
    }
    wait_in_step(&mut primary, &mut replica);
    load::run(primary.conn(), 4, 1, field_ttls);
    wait_in_step(&mut primary, &mut replica);
    wait_same(&mut primary, &mut replica);
    if matches!(cut, Cut::Neither | Cut::AtTheLimit) {
        assert_eq!(primary.number("sync_full"), 1, "the first sync succeeds");
    }
    if cut == Cut::AtTheLimit {
        let peak = replica.number("replica_full_sync_buffer_peak");
        assert_eq!(peak, 20_000, "no byte more was collected");
    }
    wait_for("one connection is left", || {
        primary.number("connected_slaves") == 1
    });
}
