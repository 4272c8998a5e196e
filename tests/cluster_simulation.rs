//! A simulator of whole clusters: the state machine of `aeris::cluster` on many simulated machines.
//!
//! `make simulate NODES=100 SEEDS=50` runs large clusters; `SIMULATE_FIRST=n` begins with another
//! seed than 0. A failing seed is named in the message:
//! `SIMULATE_SEED=n SIMULATE_TRACE=1 cargo test --test cluster_simulation one_seed -- --ignored
//! --nocapture` repeats it with the log of all nodes.

#[path = "cluster_simulation/checks.rs"]
mod checks;
#[path = "cluster_simulation/faults.rs"]
mod faults;
#[path = "cluster_simulation/world.rs"]
mod world;

use std::panic::{AssertUnwindSafe, catch_unwind};

use aeris::cluster::event::Settings;
use faults::Fault;
use world::{Shape, World};

fn number(name: &str, or: u64) -> u64 {
    let value = std::env::var(name).ok();
    value.and_then(|value| value.parse().ok()).unwrap_or(or)
}

fn settings(timeout_ms: u64) -> Settings {
    Settings {
        node_timeout_ms: timeout_ms,
        ..Settings::default()
    }
}

/// Runs the simulation until all nodes agree and serve. Returns the simulated milliseconds until
/// all nodes agreed, a multiple of 100.
fn converge(world: &mut World, limit_ms: u64) -> u64 {
    let start = world.now;
    loop {
        let Some(why) = world.disagreement() else {
            return world.now - start;
        };
        assert!(world.now - start <= limit_ms, "after {limit_ms} ms: {why}");
        world.run_until(world.now + 100);
    }
}

/// Simulates a cluster of `nodes` nodes with random faults, which then heals. Returns the time
/// until all nodes agreed again in milliseconds, and the number of promotions.
fn run(seed: u64, nodes: usize) -> (u64, u64) {
    let primaries = (3 + seed as usize % 4).min(nodes / 2);
    let shape = Shape {
        primaries,
        replicas: nodes - primaries,
    };
    let timeout = [2000, 5000, 15_000][seed as usize / 4 % 3];
    let mut world = World::new(seed, &shape, settings(timeout));
    world.checks.timeout_ms = timeout;
    converge(&mut world, 10_000);
    let faults = 2 + world.random.below(6);
    let end = world.now + 6 * timeout;
    for _ in 0..faults {
        let at = world.now + world.random.below(4 * timeout);
        Fault::schedule_random(&mut world, at, end);
    }
    world.run_until(end + 1);
    (0..nodes).for_each(|at| world.start(at));
    world.heal();
    world.note_cuts();
    // After four node timeouts, a replica repeats an election that expired.
    let took = converge(&mut world, 12 * timeout + 10_000);
    (took, world.checks.promotions)
}

fn named<T>(seed: u64, nodes: usize, test: impl FnOnce() -> T) -> T {
    catch_unwind(AssertUnwindSafe(test))
        .unwrap_or_else(|_| panic!("SIMULATE_SEED={seed} SIMULATE_NODES={nodes} fails"))
}

fn nodes_of(seed: u64) -> usize {
    6 + (seed * 7 % 25) as usize
}

#[test]
fn clusters_with_random_faults_keep_the_rules_and_heal() {
    let seeds = number("SIMULATE_SEEDS", 200);
    let first = number("SIMULATE_FIRST", 0);
    let (mut longest, mut promotions) = (0, 0);
    for seed in first..first + seeds {
        let nodes = nodes_of(seed);
        let (took, promoted) = named(seed, nodes, || run(seed, nodes));
        longest = longest.max(took);
        promotions += promoted;
    }
    println!(
        "{seeds} seeds from {first} on, {promotions} promotions, the longest healing {longest} ms"
    );
    assert!(promotions >= seeds / 10, "the faults lead to elections");
}

#[test]
fn nodes_that_meet_form_a_cluster() {
    let count = 9;
    let mut world = World::alone(7, count, settings(5000));
    for at in 0..count {
        let epoch = at as u64 + 1;
        let first = |at: usize| (at * 16_384 / 3) as u16;
        let done = world.command(at, |cluster, now, out| {
            let slots: Vec<u16> = if at < 3 {
                (first(at)..first(at + 1)).collect()
            } else {
                vec![]
            };
            cluster.set_config_epoch(now, epoch, out)?;
            cluster.add_slots(now, &slots, out)
        });
        assert_eq!(done, Some(Ok(())));
    }
    for at in 1..count {
        let address = world::address(at);
        let begun = world.command(0, |cluster, now, out| cluster.meet(now, address, out));
        assert_eq!(begun, Some(true));
    }
    converge(&mut world, 20_000);
    let knows_all = |world: &World| {
        let known = world
            .machines
            .iter()
            .filter_map(|machine| machine.cluster.as_ref());
        known
            .map(|cluster| cluster.nodes().count())
            .all(|len| len == count)
    };
    assert!(knows_all(&world));
    for at in 3..count {
        let primary = world.machines[at % 3].name;
        let done = world.command(at, |cluster, now, out| {
            cluster.replicate(now, &primary, true, out)
        });
        assert_eq!(done, Some(Ok(())));
    }
    world.run_until(world.now + 5000);
    assert!(knows_all(&world));
    // CLUSTER FORGET on one node makes all nodes forget the dead node, which does not come back.
    let name = world.machines[8].name;
    world.kill(8);
    let done = world.command(0, |cluster, now, out| cluster.forget(now, &name, out));
    assert_eq!(done, Some(Ok(())));
    world.run_until(world.now + 10_000);
    let known = world
        .machines
        .iter()
        .filter_map(|machine| machine.cluster.as_ref());
    assert!(
        known
            .into_iter()
            .all(|cluster| cluster.nodes().find(&name).is_none())
    );
}

/// Kills as many primaries at once as can die while a majority of them stays. Returns the time
/// until all nodes agree again, in node timeouts.
fn many_die(seed: u64, nodes: usize, timeout: u64) -> f64 {
    let shape = Shape {
        primaries: nodes / 2,
        replicas: nodes - nodes / 2,
    };
    let mut world = World::new(seed, &shape, settings(timeout));
    world.checks.timeout_ms = timeout;
    converge(&mut world, 20_000);
    world.run_until(world.now + timeout);
    let dead = (shape.primaries - 1) / 2;
    for at in 0..dead {
        world.kill(at);
    }
    let (elections, sent) = (world.checks.elections, world.sent);
    let took = converge(&mut world, 5 * timeout);
    assert!(world.checks.promotions >= dead as u64);
    println!(
        "{nodes} nodes, timeout {timeout} ms, {dead} primaries die: {took} ms, {} elections, {} MB",
        world.checks.elections - elections,
        (world.sent.bytes - sent.bytes) / 1_000_000
    );
    took as f64 / timeout as f64
}

#[test]
fn half_of_the_primaries_die_and_all_shards_recover() {
    for seed in 0..number("SIMULATE_SEEDS", 6).min(24) {
        let nodes = 10 + seed as usize % 3 * 25;
        named(seed, nodes, || {
            let timeout = [2000, 15_000][seed as usize % 2];
            assert!(many_die(seed, nodes, timeout) <= 5.0);
        });
    }
}

/// Kills one primary. Returns the time until a replica is promoted and the time until all nodes
/// agree, in simulated milliseconds.
fn one_dies(seed: u64, nodes: usize, timeout: u64) -> (u64, u64) {
    let shape = Shape {
        primaries: nodes / 2,
        replicas: nodes - nodes / 2,
    };
    let mut world = World::new(seed, &shape, settings(timeout));
    converge(&mut world, 20_000);
    world.run_until(world.now + timeout);
    world.kill(0);
    let start = world.now;
    while world.checks.promotions == 0 {
        assert!(world.now < start + 5 * timeout, "no promotion");
        world.run_until(world.now + 10);
    }
    let promoted = world.now - start;
    (promoted, promoted + converge(&mut world, 5 * timeout))
}

/// Prints what simulated clusters do, beside the formulae that predict it: `make simulate
/// NODES=...`.
#[test]
#[ignore = "minutes; make simulate"]
fn table() {
    let seeds = number("SIMULATE_SEEDS", 3);
    println!(
        "| nodes | timeout ms | B/s sent by a node | formula | promoted ms | agreed ms | formula |"
    );
    println!("|---|---|---|---|---|---|---|");
    for nodes in [6, 12, 30, 100, 300, 1000] {
        if nodes as u64 > number("SIMULATE_NODES", 100) {
            break;
        }
        let timeout = 15_000;
        let shape = Shape {
            primaries: nodes / 2,
            replicas: nodes - nodes / 2,
        };
        let mut world = World::new(1, &shape, settings(timeout));
        converge(&mut world, 20_000);
        world.run_until(world.now + timeout);
        let (before, seconds) = (world.sent, 30);
        world.run_until(world.now + seconds * 1000);
        let bytes = (world.sent.bytes - before.bytes) / seconds / nodes as u64;
        // A node exchanges a ping and a pong with each peer in half a timeout, and with one random
        // peer in each second.
        let packets = (nodes as f64 - 1.0) / (timeout as f64 / 2000.0) + 1.0;
        let size = 2256.0 + 104.0 * (nodes as f64 / 10.0).max(3.0).min(nodes as f64 - 2.0) + 48.0;
        let runs: Vec<(u64, u64)> = (0..seeds)
            .map(|seed| one_dies(seed, nodes, timeout))
            .collect();
        let mean = |pick: fn(&(u64, u64)) -> u64| runs.iter().map(pick).sum::<u64>() / seeds;
        println!(
            "| {nodes} | {timeout} | {bytes} | {:.0} | {} | {} | {}..{} |",
            packets * size * 2.0,
            mean(|run| run.0),
            mean(|run| run.1),
            timeout,
            timeout * 3 / 2 + timeout / 15,
        );
    }
}

#[test]
#[ignore = "minutes; make simulate"]
fn many_primaries_die_in_a_large_cluster() {
    let nodes = number("SIMULATE_NODES", 100) as usize;
    for seed in 0..number("SIMULATE_SEEDS", 1) {
        named(seed, nodes, || {
            assert!(many_die(seed, nodes, 15_000) <= 5.0)
        });
    }
}

#[test]
#[ignore = "repeats one seed"]
fn one_seed() {
    let seed = number("SIMULATE_SEED", 0);
    let nodes = number("SIMULATE_NODES", nodes_of(seed) as u64) as usize;
    println!("{:?}", run(seed, nodes));
}
