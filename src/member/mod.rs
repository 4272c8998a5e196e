//! This server as a node of a cluster: executes the actions that `crate::cluster` returns.
//!
//! ```text
//!   CLUSTER ... ──> act ─┐                      ┌─> Member::wire   connections and packets: networking::bus
//!   networking::bus ──> step ─> Cluster::step ──┼─> disk           nodes.conf, on a thread
//!                        │       actions        ├─> sync::role     Follow, Promote
//!                        └──────── perform <────┴─> pause, pubsub, keyspace, log
//! ```
//!
//! The actions of a step of the cluster's state machine are executed in order, before the next
//! step. Actions about connections and packets are queued in `Member::wire` and executed by
//! `networking::bus`, since commands have no access to the event loop. Actions that replace the
//! data set or change the role are not executed in nested turns, but queued until the end of the
//! turn ([`perform_waiting`]).
//!
//! **Invariant:** `Server::cluster` is `Some` exactly when `cluster-enabled` is set.

mod disk;
mod perform;
mod settings;
pub mod slots;
pub mod start;
pub mod transfer;

use std::net::IpAddr;
use std::time::Instant;

use crate::clock::unix_us;
use crate::cluster::Cluster;
use crate::cluster::event::{Action, Event, Now, Wire};
use crate::cluster::name::Ip;
use crate::cluster::packet::Publish;
use crate::cluster::transfer::Transfers;
use crate::config::Config;
use crate::state::Server;
use crate::util::random::Random;

pub use self::perform::{perform_waiting, take_saves};
pub use self::settings::BUS_PORT_DISTANCE;

/// The node of the cluster that this server is.
pub struct Member {
    pub machine: Cluster,
    /// The atomic moves of slots, of which this node is the source or the target.
    pub transfers: Transfers,
    /// The queue of the connections to open or close and packets to send that `networking::bus`
    /// executes, in order.
    pub wire: Vec<Wire>,
    /// The actions that can't be executed in a nested turn, and wait for the end of the turn, in
    /// order.
    waiting: Vec<Action>,
    /// The number of changes of slot owners, roles or addresses since the start.
    pub topology: u64,
    disk: disk::Disk,
    began: Instant,
}

impl Member {
    /// A node that knows no other node; `None` unless `cluster-enabled` is set.
    pub fn of(config: &Config, random: &mut Random) -> Option<Box<Member>> {
        let new = || Box::new(Member::new(config, random.split()));
        config.cluster_enabled.then(new)
    }

    fn new(config: &Config, random: Random) -> Member {
        let began = Instant::now();
        Member {
            machine: Cluster::new(now_since(began), settings::of(config), random),
            transfers: Transfers::default(),
            wire: Vec::new(),
            waiting: Vec::new(),
            topology: 0,
            disk: disk::Disk::default(),
            began,
        }
    }

    /// The number of bytes of the packets that are queued in `wire`.
    pub fn unsent(&self) -> usize {
        let len = |wire: &Wire| match wire {
            Wire::Send { message, .. } => message.encoded_len(),
            Wire::Connect { .. } | Wire::Close(_) => 0,
        };
        self.wire.iter().map(len).sum()
    }

    /// Closes the locked file nodes.conf in a forked child, so that the lock ends with the parent.
    pub fn close_lock_in_child(&mut self) {
        self.disk.close_in_child();
    }

    /// The present time in milliseconds since the start, as the deadlines of the cluster's state
    /// machine count it.
    pub fn now_ms(&self) -> u64 {
        ms_since(self.began)
    }

    /// The present time, in the form in which the cluster's state machine takes it.
    pub fn now(&self) -> Now {
        now_since(self.began)
    }
}

fn ms_since(began: Instant) -> u64 {
    began.elapsed().as_millis() as u64 + 1
}

fn now_since(began: Instant) -> Now {
    Now {
        ms: ms_since(began),
        wall_ms: (unix_us() / 1000).max(0) as u64,
    }
}

/// Parses an IP address into the form that cluster nodes exchange; `None` for a host name.
pub fn numeric_ip(text: &[u8]) -> Option<Ip> {
    let ip = std::str::from_utf8(text).ok()?.parse::<IpAddr>().ok()?;
    Ip::parse(ip.to_string().as_bytes())
}

/// The port of the cluster bus; `None` if the server is not a node of a cluster.
pub fn bus_port(server: &Server) -> Option<u16> {
    let port = settings::bus_port(&server.config);
    port.filter(|_| server.cluster.is_some())
}

/// Calls a function of the cluster's state machine and executes the actions that the function
/// appends. Returns `None` without a cluster.
pub fn act<R>(
    server: &mut Server,
    verb: impl FnOnce(&mut Cluster, Now, &mut Vec<Action>) -> R,
) -> Option<R> {
    let member = server.cluster.as_deref_mut()?;
    let (now, mut actions) = (member.now(), Vec::new());
    let result = verb(&mut member.machine, now, &mut actions);
    perform::perform(server, actions);
    Some(result)
}

/// Passes an event to the cluster's state machine, and executes the resulting actions.
pub fn step(server: &mut Server, event: Event) {
    act(server, |machine, now, out| machine.step(now, event, out));
}

/// PUBLISH and SPUBLISH: sends the message to the other nodes of the cluster.
pub fn publish(server: &mut Server, sharded: bool, channel: &[u8], message: &[u8]) {
    let publish = Publish {
        sharded,
        channel: channel.into(),
        message: message.into(),
    };
    act(server, |machine, _, out| machine.publish(&publish, out));
}

/// Passes the settings to the cluster's state machine, if they have changed.
pub fn follow_settings(server: &mut Server) {
    let settings = settings::of(&server.config);
    act(server, |machine, _, _| {
        if machine.settings() != &settings {
            machine.configure(settings);
        }
    });
}
