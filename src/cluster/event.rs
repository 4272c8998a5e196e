//! The input of the cluster's state machine (events, settings) and its output (actions).

use std::rc::Rc;

use super::name::{Ip, Name};
use super::packet::{Message, Publish};
use crate::texts::Words;

/// The time of an event of the cluster's state machine.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Now {
    /// Milliseconds of a clock that never goes back; not 0. All decisions of the cluster use this
    /// clock.
    pub ms: u64,
    /// The Unix time in milliseconds, which may jump. In the cluster, only gossip and nodes.conf
    /// use the Unix time.
    pub wall_ms: u64,
}

/// The number of a connection of the cluster bus; no number is used twice.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct LinkId(pub u64);

/// The IP address of a cluster node and its ports.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Address {
    pub ip: Ip,
    /// The node's port for clients without TLS; 0 if it has none.
    pub tcp_port: u16,
    /// The node's port for clients with TLS; 0 if it has none.
    pub tls_port: u16,
    pub bus_port: u16,
}

/// The replication state of this node, as far as elections need it.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Replication {
    /// The offset of a primary's stream, or the offset up to which a replica has applied it.
    pub offset: u64,
    /// On a replica: whether the link to the primary is up and in sync.
    pub connected: bool,
    /// On a replica: the time ([`Now::ms`]) of the last byte from the primary; 0 before the first
    /// byte.
    pub heard_ms: u64,
}

/// An event of the outside world, which is passed to the cluster's state machine.
#[derive(Debug)]
pub enum Event<'a> {
    /// The time of [`super::Cluster::deadline`] has come: the tick of a tenth of a second, a step
    /// of an election, or a FAIL packet is due.
    Tick,
    /// A connection that [`Wire::Connect`] asked for is up.
    Connected(LinkId),
    /// Another node connected to the bus port; the link's number is from
    /// [`super::Cluster::new_link`].
    Accepted(LinkId),
    /// A connection of the bus ended, or could not be made. The state machine returns no
    /// [`Wire::Close`] for such a link.
    Closed(LinkId),
    /// A packet was received over the bus.
    Packet {
        link: LinkId,
        /// The IP address of the other end of the packet's connection.
        peer: Ip,
        local: Ip,
        message: &'a Message,
    },
    /// The replication state of this node changed.
    Replication(Replication),
    /// The nodes.conf of the [`Action::Save`] with this token, and of all earlier saves, is on the
    /// disk.
    Saved(u64),
}

/// What the server must do for the cluster's state machine; actions are executed in their order.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Action {
    /// Open, close or write to a connection of the bus.
    Wire(Wire),
    /// Write [`super::Cluster::conf`] to nodes.conf, then pass [`Event::Saved`] to the state
    /// machine. With `durable` the file must be synced, since a vote or an epoch is held back until
    /// it is on the disk. A save includes the changes of all earlier saves.
    Save { token: u64, durable: bool },
    /// Replicate from `primary`, the new primary of this node or its primary at a new address.
    /// Without `keeps_data`, this node's data are those of another shard, and have no offset until
    /// a sync.
    Follow {
        primary: Name,
        address: Address,
        keeps_data: bool,
    },
    /// Stop replicating and keep the data, since this node has become a primary.
    Promote,
    /// Remove all data, since this node was a replica and was reset (CLUSTER RESET).
    Flush,
    /// Pause the writes of clients up to the time `until_ms`, for a manual failover;
    /// [`Action::Resume`] can end the pause earlier.
    Pause { until_ms: u64 },
    /// End the pause of clients' writes that [`Action::Pause`] began.
    Resume,
    /// Delete the keys of slots that have another owner now.
    DeleteKeys(Vec<u16>),
    /// Drop cached replies and check blocked clients again, since owners of slots, roles or
    /// addresses changed.
    TopologyChanged,
    /// Note whether the cluster is up or down in the view of this node.
    State { up: bool },
    /// Publish a message that came over the bus to the subscribers of this node.
    Publish(Publish),
    /// Write a line to the server's log.
    Log(log::Level, String),
}

/// An operation on a connection of the cluster bus; operations are executed in their order.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Wire {
    /// Connect to the bus port of a node; the result is [`Event::Connected`] or [`Event::Closed`].
    Connect { link: LinkId, ip: Ip, port: u16 },
    /// Send a packet on a connection of the bus. A message that is sent to many nodes is shared, so
    /// that it is encoded once.
    Send { link: LinkId, message: Rc<Message> },
    /// Close a connection of the bus; no event reports the end of this connection.
    Close(LinkId),
}

/// The settings that the cluster's state machine uses.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Settings {
    /// The setting `cluster-node-timeout` in milliseconds, at least 1.
    pub node_timeout_ms: u64,
    /// The setting `cluster-ping-interval`.
    pub ping_interval_ms: u64,
    /// The setting `cluster-replica-validity-factor`; with 0 a replica may be elected however old
    /// its data are.
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
    /// The setting `tls-cluster`: whether the links between nodes use TLS.
    pub tls_cluster: bool,
    /// The address that this node announces. If the announced IP address is empty, peers use the
    /// address of the connection.
    pub announced: Address,
    /// The texts that this node announces: names, availability zone, addresses for clients.
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

/// The texts and client ports that a node announces beside its address, in
/// [`super::packet::Extension`]s of its packets.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Texts {
    pub host_name: Option<Box<[u8]>>,
    pub human_name: Option<Box<[u8]>>,
    pub zone: Option<Box<[u8]>>,
    pub client_ipv4: Option<Box<[u8]>>,
    pub client_ipv6: Option<Box<[u8]>>,
    pub client_port: u16,
    pub client_tls_port: u16,
    /// Fields of the node's line in nodes.conf with keys that aeris does not know.
    pub other: Vec<(Box<str>, Box<str>)>,
}
