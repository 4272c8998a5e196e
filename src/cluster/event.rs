//! The events and settings that the cluster's machine takes, and the actions that it returns.

use std::rc::Rc;

use super::name::{Ip, Name};
use super::packet::{Message, Publish};
use crate::texts::Words;

/// The time of an event.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Now {
    /// Milliseconds that never decrease; not 0. All decisions use this time.
    pub ms: u64,
    /// Unix time in milliseconds, which may jump. Only gossip and nodes.conf use the Unix time.
    pub wall_ms: u64,
}

/// The number of a connection of the bus. A number is used once.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct LinkId(pub u64);

/// The address of a node.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Address {
    pub ip: Ip,
    /// The port for clients without TLS; 0: none.
    pub tcp_port: u16,
    /// The port for clients with TLS; 0: none.
    pub tls_port: u16,
    pub bus_port: u16,
}

/// The state of replication of this node, as far as elections need it.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Replication {
    /// The offset of a primary's stream, or the offset up to which a replica has applied it.
    pub offset: u64,
    /// On a replica: whether the link to the primary is up and in sync.
    pub connected: bool,
    /// On a replica: the time ([`Now::ms`]) of the last byte of the primary; 0: never.
    pub heard_ms: u64,
}

/// What happened outside of the machine.
#[derive(Debug)]
pub enum Event<'a> {
    /// The time of [`super::Cluster::deadline`] has come: a tenth of a second has passed, or an
    /// election or a FAIL packet is due.
    Tick,
    /// A connection that the machine asked for with [`Wire::Connect`] is up.
    Connected(LinkId),
    /// A peer connected; the number is from [`super::Cluster::new_link`].
    Accepted(LinkId),
    /// A connection ended, or could not be made. The machine does not send [`Wire::Close`] for
    /// this link.
    Closed(LinkId),
    /// A packet was received.
    Packet {
        link: LinkId,
        /// The IP address of the connection's other end.
        peer: Ip,
        local: Ip,
        message: &'a Message,
    },
    /// The state of replication changed.
    Replication(Replication),
    /// The configuration of the save with this token, and of all saves before, is on the disk.
    Saved(u64),
}

/// What the owner of the machine must do, in order.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Action {
    /// Change or use a connection of the bus.
    Wire(Wire),
    /// Write [`super::Cluster::conf`] to nodes.conf, later [`Event::Saved`]. `durable`: sync the
    /// file, since a vote or an epoch is held back until it is on the disk. A save includes the
    /// changes of all earlier ones.
    Save { token: u64, durable: bool },
    /// This node is a replica of `primary` now, or its primary has another address. Unless
    /// `keeps_data`, the data are those of another shard, and have no offset until a sync.
    Follow {
        primary: Name,
        address: Address,
        keeps_data: bool,
    },
    /// Stop replicating and keep the data, since this node is a primary now.
    Promote,
    /// Remove all data: a replica was reset.
    Flush,
    /// Hold back writes until this time, for a manual failover; later [`Action::Resume`].
    Pause { until_ms: u64 },
    /// Stop holding back writes.
    Resume,
    /// Delete the keys of these slots, which have another owner now.
    DeleteKeys(Vec<u16>),
    /// The owners of slots, roles or addresses changed: cached replies are stale, and blocked
    /// clients must be redirected.
    TopologyChanged,
    /// The cluster is up or down in the view of this node.
    State { up: bool },
    /// Publish a message to the subscribers of this node.
    Publish(Publish),
    /// Write a line to the log.
    Log(log::Level, String),
}

/// What the bus must do with a connection, in order.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Wire {
    /// Connect to a bus port; later [`Event::Connected`] or [`Event::Closed`].
    Connect { link: LinkId, ip: Ip, port: u16 },
    /// Send a packet. A message may be shared by many sends: encode it once.
    Send { link: LinkId, message: Rc<Message> },
    /// Close a connection, without an event.
    Close(LinkId),
}

/// The settings that the machine reads.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Settings {
    /// `cluster-node-timeout` in milliseconds, at least 1.
    pub node_timeout_ms: u64,
    /// The setting `cluster-ping-interval`.
    pub ping_interval_ms: u64,
    /// The setting `cluster-replica-validity-factor`; 0: a replica may be elected however old its
    /// data are.
    pub validity_factor: u64,
    /// The setting `repl-ping-replica-period`.
    pub repl_ping_ms: u64,
    /// The setting `cluster-migration-barrier`.
    pub migration_barrier: usize,
    /// The setting `cluster-allow-replica-migration`.
    pub allow_replica_migration: bool,
    /// The setting `cluster-require-full-coverage`.
    pub full_coverage: bool,
    /// The setting `cluster-replica-no-failover`.
    pub no_failover: bool,
    /// The setting `cluster-manual-failover-timeout`.
    pub manual_timeout_ms: u64,
    /// The setting `cluster-blacklist-ttl`.
    pub blacklist_ms: u64,
    /// The setting `cluster-message-gossip-perc`.
    pub gossip_percent: usize,
    /// Whether nodes talk to each other with TLS.
    pub tls_cluster: bool,
    /// The announced address. With an empty IP, peers take the address of the connection.
    pub announced: Address,
    /// The announced texts: names, zone, addresses for clients.
    pub texts: Texts,
    pub words: Words,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            node_timeout_ms: 15_000,
            ping_interval_ms: 1000,
            validity_factor: 10,
            repl_ping_ms: 10_000,
            migration_barrier: 1,
            allow_replica_migration: true,
            full_coverage: true,
            no_failover: false,
            manual_timeout_ms: 5000,
            blacklist_ms: 60_000,
            gossip_percent: 10,
            tls_cluster: false,
            announced: Address::default(),
            texts: Texts::default(),
            words: Words::Redis,
        }
    }
}

/// What a node announces beside its address, in the form of [`super::packet::Extension`]s.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Texts {
    pub host_name: Option<Box<[u8]>>,
    pub human_name: Option<Box<[u8]>>,
    pub zone: Option<Box<[u8]>>,
    pub client_ipv4: Option<Box<[u8]>>,
    pub client_ipv6: Option<Box<[u8]>>,
    pub client_port: u16,
    pub client_tls_port: u16,
    /// Fields of nodes.conf with keys that this server does not know.
    pub other: Vec<(Box<str>, Box<str>)>,
}
