//! The writes that a promotion without coordination loses: measured for aeris, Redis and Valkey.
//!
//! A client writes to a primary with one replica, one write after the other. The primary is killed,
//! the replica is promoted, and the acknowledged writes that the replica lacks are counted.

use std::time::{Duration, Instant};

use crate::common::{Conn, multibulk};
use crate::load::Dice;
use crate::nodes::{Node, ServerKind, wait_for, wait_in_step};

const ROUNDS: usize = 10;

/// The acknowledged writes that a promoted replica lacks, and the time in which they were
/// acknowledged.
#[derive(Clone, Copy, Default)]
struct Loss {
    writes: usize,
    window: Duration,
}

/// Sets a key to 1, 2, 3 .. until the server ends. Returns the time at which each write was
/// acknowledged.
fn write_until_the_end(port: u16) -> Vec<Instant> {
    let mut c = Conn::new(port);
    let mut acked = Vec::new();
    loop {
        let n = (acked.len() + 1).to_string();
        c.try_send(&multibulk(&["SET", "n", &n]));
        match c.try_reply() {
            Some(reply) if reply == b"+OK\r\n" => acked.push(Instant::now()),
            _ => return acked,
        }
    }
}

fn round(kind: ServerKind, dice: &mut Dice) -> Option<Loss> {
    let args = ["--appendonly", "no"];
    let (mut primary, mut replica) = (Node::start(kind, &args)?, Node::start(kind, &args)?);
    replica.follow(&primary);
    wait_in_step(&mut primary, &mut replica);
    let port = primary.port();
    let writer = std::thread::spawn(move || write_until_the_end(port));
    std::thread::sleep(Duration::from_millis(200 + dice.below(300)));
    primary.peer.kill();
    let acked = writer.join().expect("a writer");
    wait_for("the link is down", || {
        replica.info("master_link_status") == "down"
    });
    replica.ok("REPLICAOF NO ONE");
    let value = replica.line("GET n");
    let has: usize = value
        .lines()
        .nth(1)
        .and_then(|n| n.parse().ok())
        .unwrap_or(0);
    let lost = &acked[has.min(acked.len())..];
    let window = match lost {
        [] => Duration::ZERO,
        [first, .., last] => *last - *first,
        [_] => Duration::ZERO,
    };
    Some(Loss {
        writes: lost.len(),
        window,
    })
}

/// Prints a line for each kind of server: the acknowledged writes that promotions lost.
pub fn report() {
    for kind in [
        ServerKind::Aeris,
        ServerKind::Redis7,
        ServerKind::Redis8,
        ServerKind::Valkey8,
        ServerKind::Valkey9,
    ] {
        let mut dice = Dice(7);
        let losses: Vec<Loss> = (0..ROUNDS).map_while(|_| round(kind, &mut dice)).collect();
        let writes: Vec<usize> = losses.iter().map(|loss| loss.writes).collect();
        let longest = losses
            .iter()
            .map(|loss| loss.window)
            .max()
            .unwrap_or_default();
        println!("{kind:?}: lost writes {writes:?}, within {longest:?} at most");
    }
}
