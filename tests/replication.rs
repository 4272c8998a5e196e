//! Replication between processes: with Redis and Valkey on either side, and when links, disks and
//! processes fail.
//!
//! - `cells`: the interoperability matrix. Eight of its cells run in this test, all cells by `make
//!   interop`. `AERIS_CELLS` selects cells by words of their names (`AERIS_CELLS="Redis7 swapdb"`).
//! - `channels`: full syncs over two connections. Five cases run in this test, all cases by `make
//!   interop`.
//! - `by_aof`: a restart by the AOF, which continues the history.
//! - `loading`: what clients see while a replica loads, and which data stays if the load fails.

#[path = "replication/by_aof.rs"]
mod by_aof;
#[path = "replication/cells.rs"]
mod cells;
#[path = "replication/channels.rs"]
mod channels;
mod common;
#[path = "replication/load.rs"]
mod load;
#[path = "replication/loading.rs"]
mod loading;
#[path = "replication/nodes.rs"]
mod nodes;

use std::panic::catch_unwind;
use std::sync::Mutex;

use cells::Cell;
use channels::Cut;
use nodes::ServerKind;

/// Runs the cell of the matrix with this name. Without its real server nothing is tested, which
/// `find_peer` reports.
fn cell(name: &str) {
    let cells = Cell::all();
    let mut named = cells.iter().filter(|cell| cell.name() == name);
    named.next().expect("a cell of this name").run();
    assert!(named.next().is_none());
}

#[test]
fn redis_7_0_continues_after_a_cut() {
    cell("replica Redis7, disk, disabled, Partial");
}

#[test]
fn redis_8_2_is_promoted_and_gets_us_as_its_replica() {
    cell("replica Redis8, diskless, disabled, Promotion");
}

#[test]
fn valkey_8_0_returns_with_its_aof() {
    cell("replica Valkey8, diskless, disabled, RestartByAof");
}

#[test]
fn valkey_9_1_stands_between_two_of_ours() {
    cell("replica Valkey9, diskless, swapdb, Chained");
}

#[test]
fn we_return_to_redis_7_0_with_a_snapshot() {
    cell("primary Redis7, disk, disabled, RestartByRdb");
}

#[test]
fn we_stand_between_two_redis_8_2() {
    cell("primary Redis8, diskless, on-empty-db, Chained");
}

#[test]
fn we_are_promoted_before_valkey_8_0() {
    cell("primary Valkey8, disk, disabled, Promotion");
}

#[test]
fn we_continue_after_valkey_9_1_cuts_us() {
    cell("primary Valkey9, diskless, swapdb, Partial");
}

#[test]
fn valkey_9_1_gets_snapshot_and_stream_at_once() {
    channels::run(ServerKind::Aeris, ServerKind::Valkey9, Cut::Neither);
}

#[test]
fn valkey_9_1_sends_us_snapshot_and_stream_at_once() {
    channels::run(ServerKind::Valkey9, ServerKind::Aeris, Cut::Neither);
}

#[test]
fn redis_8_2_loses_the_connection_of_its_snapshot() {
    channels::run(ServerKind::Aeris, ServerKind::Redis8, Cut::Snapshot);
}

#[test]
fn redis_8_2_sends_us_snapshot_and_stream_at_once() {
    channels::run(ServerKind::Redis8, ServerKind::Aeris, Cut::Neither);
}

#[test]
fn we_lose_the_stream_while_a_snapshot_of_ours_is_sent() {
    channels::run(ServerKind::Aeris, ServerKind::Aeris, Cut::Main);
}

#[test]
#[ignore = "part of make interop"]
fn every_sync_over_two_connections() {
    for (primary, replica, cut) in channels::all() {
        println!("{primary:?} to {replica:?}, {cut:?} is cut");
        channels::run(primary, replica, cut);
    }
}

#[test]
#[ignore = "all cells take a quarter of an hour: make interop"]
fn every_cell() {
    let wanted = std::env::var("AERIS_CELLS").unwrap_or_default();
    let is_wanted = |cell: &Cell| wanted.split(' ').all(|word| cell.name().contains(word));
    let cells: Vec<Cell> = Cell::all().into_iter().filter(is_wanted).collect();
    let (queue, failed) = (Mutex::new(cells.iter()), Mutex::new(Vec::new()));
    let work = || {
        loop {
            let next = queue.lock().expect("no panic inside").next();
            let Some(cell) = next else {
                return;
            };
            let passed = catch_unwind(|| cell.run()).is_ok();
            println!(
                "{} {}",
                if passed { "ok    " } else { "FAILED" },
                cell.name()
            );
            if !passed {
                failed.lock().expect("no panic inside").push(cell.name());
            }
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(work);
        }
    });
    let failed = failed.into_inner().expect("no panic inside");
    println!("{} of {} cells failed", failed.len(), cells.len());
    assert!(failed.is_empty(), "{}", failed.join("\n"));
}
