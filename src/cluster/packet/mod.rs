//! Packets of the cluster bus of Redis 7 and 8 and Valkey 8 and 9. All numbers in packets are
//! big-endian.
//!
//! ```text
//!      0  "RCmb" | total length u32 | version u16 = 1 | port u16 | kind u16 | count u16
//!     16  current epoch u64 | config epoch u64 | replication offset u64
//!     40  name of the sender, 40 bytes
//!     80  slots of the sender or of its primary, 2,048 bytes        bit of slot 0: lowest of byte 80
//!   2128  name of the primary, 40 bytes; zeros: the sender is a primary
//!   2168  announced IP, 46 bytes, NUL-terminated; zeros: the address of the connection
//!   2214  number of extensions u16 | 30 unused
//!   2246  second port u16 | bus port u16 | flags u16 | state u8 | message flags 3 x u8
//!   2256  the body
//!
//!   body   PING PONG MEET   count x 104 bytes of gossip, then the extensions
//!          FAIL             name
//!          PUBLISH(SHARD)   length u32, length u32, channel, message
//!          AUTH_REQUEST, AUTH_ACK, MFSTART   nothing
//!          UPDATE           config epoch u64, name, slots
//!          MODULE           module u64, length u32, kind u8, data
//!
//!   gossip      name 40 | ping sent u32 s | pong received u32 s | IP 46
//!               | port u16 | bus port u16 | flags u16 | second port u16 | 2 unused
//!   extension   length u32 with this head | kind u16 | 2 unused | data, zeros up to 8 bytes
//!   light head  "RCmb" | total length u32 | version u16 | 2 unused | kind u16 | 2 unused | body
//! ```
//!
//! A light head (Valkey 8) is a head of 16 bytes for PUBLISH, PUBLISHSHARD and MODULE, with the bit
//! 0x8000 in the number of the packet type. A packet with a light head is sent only to peers with
//! [`flag::LIGHT_PUBLISH`]; the link over which it arrives identifies its sender.
//!
//! Packets are read only by [`Message::parse`], which checks each length and count before using it,
//! and returns only valid names, addresses and texts. Extension 4 is the internal secret of Redis 8
//! (40 bytes) and the IPv4 address for clients in Valkey (at most 16): the length tells them apart.
//! Extensions of an unknown type, or with a text that nodes.conf can't contain, are kept as
//! [`Extension::Other`] and ignored; the packet with the extension is not refused.
//!
//! **Invariant:** a packet that was parsed encodes to the same bytes, except for unused fields
//! (`tests::packets_of_real_servers_encode_to_themselves`, fuzz target `bus`).
//! **Limits:** a packet has at most [`PACKET_MAX`] bytes.

mod encode;
mod parse;
#[cfg(test)]
mod tests;

use std::rc::Rc;

use super::bitmap::Bitmap;
use super::name::{Ip, Name};

pub use self::parse::{Malformed, frame_len};

/// The size in bytes of the head of a packet, behind which the body begins.
const HEAD_LEN: usize = 2256;
/// The size in bytes of a light head, the short head of some packets of Valkey 8.
const LIGHT_LEN: usize = 16;
/// The size in bytes of an entry of gossip in a packet.
const GOSSIP_LEN: usize = 104;
/// The size in bytes of the head of an extension in a packet.
const EXTENSION_LEN: usize = 8;
/// The number of packet types (PING, FAIL and so on).
pub const KINDS: usize = 11;
/// The version of the cluster bus protocol.
const VERSION: u16 = 1;
/// The bit in the packet type that marks a light head.
const LIGHT: u16 = 0x8000;

/// The maximum size in bytes of a packet: a PUBLISH whose message is the largest bulk string, with
/// its head.
pub const PACKET_MAX: usize = 512 * 1024 * 1024 + 64 * 1024;

/// The flags of a node, in the heads of packets and in gossip.
pub mod flag {
    /// The node is a primary.
    pub const PRIMARY: u16 = 1;
    /// The node is a replica.
    pub const REPLICA: u16 = 2;
    /// The node does not answer the sender of the packet.
    pub const PFAIL: u16 = 4;
    /// A majority of the primaries agrees that the node does not answer.
    pub const FAIL: u16 = 8;
    /// The node is the sender of the packet itself.
    pub const MYSELF: u16 = 16;
    /// The name of the node is not known yet.
    pub const HANDSHAKE: u16 = 32;
    /// The address of the node is not known.
    pub const NO_ADDR: u16 = 64;
    /// The first packet to the node is a MEET, as CLUSTER MEET added it.
    pub const MEET: u16 = 128;
    /// The node is a primary to which replicas of other primaries may move.
    pub const MIGRATE_TO: u16 = 256;
    /// The node is a replica that does not start elections.
    pub const NO_FAILOVER: u16 = 512;
    /// The node reads extensions of PING packets.
    pub const EXTENSIONS: u16 = 1024;
    /// The node reads PUBLISH packets with light heads (Valkey 8).
    pub const LIGHT_PUBLISH: u16 = 2048;
    /// The sender is a replica whose primary is marked FAIL (Valkey 9.1).
    pub const PRIMARY_FAILED: u16 = 8192;
}

/// The flags of a packet itself, in the first byte of its message flags.
pub mod message_flag {
    /// The sender has paused its writes for a manual failover.
    pub const PAUSED: u8 = 1;
    /// The sender asks for votes although its primary has not failed (manual failover).
    pub const FORCE_ACK: u8 = 2;
    /// The sender reads extensions of PING packets.
    pub const EXTENSIONS: u8 = 4;
}

/// The head of a packet, for all packets without a light head.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Header {
    pub sender: Name,
    pub current_epoch: u64,
    pub config_epoch: u64,
    /// The replication offset of the sender.
    pub offset: u64,
    /// The slots of the sender, or of its primary if it is a replica.
    pub slots: Rc<Bitmap>,
    /// The name of the sender's primary, if the sender is a replica.
    pub replica_of: Option<Name>,
    /// The IP address that the sender announces; if it is empty, the address of the connection
    /// counts.
    pub ip: Ip,
    /// The sender's port for clients, which replicas of the cluster also connect to: with
    /// `tls-cluster` the TLS port.
    pub port: u16,
    /// The sender's other port for clients: without TLS if `port` is with TLS, and vice versa; 0 if
    /// there is none.
    pub second_port: u16,
    pub bus_port: u16,
    pub flags: u16,
    /// 0 if the cluster is up in the sender's view, 1 if it is down.
    pub state: u8,
    pub message_flags: [u8; 3],
}

/// What the sender of a PING, PONG or MEET knows about another node.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Gossip {
    pub name: Name,
    /// The time of the sender's ping that the node has not answered yet, in seconds of the sender's
    /// clock; 0 if there is none.
    pub ping_sent_s: u32,
    /// The time of the node's last pong to the sender, in seconds of the sender's clock; 0 if there
    /// was none.
    pub pong_received_s: u32,
    pub ip: Ip,
    pub port: u16,
    pub bus_port: u16,
    pub flags: u16,
    pub second_port: u16,
}

/// An extension of a PING, PONG or MEET packet: a further field, which old nodes ignore.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Extension {
    HostName(Box<[u8]>),
    HumanName(Box<[u8]>),
    /// The node `node` was removed with CLUSTER FORGET, and must not be added again for `ttl_s`
    /// seconds.
    Forgotten {
        node: Name,
        ttl_s: u64,
    },
    ShardId(Name),
    /// A secret that all nodes of a Redis 8 cluster share.
    InternalSecret([u8; 40]),
    ClientIpv4(Box<[u8]>),
    ClientIpv6(Box<[u8]>),
    ClientPort(u16),
    ClientTlsPort(u16),
    Zone(Box<[u8]>),
    /// An extension of an unknown type, or with a text that is not accepted; `data` includes the
    /// padding.
    Other {
        kind: u16,
        data: Box<[u8]>,
    },
}

/// The three types of packets that have gossip.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PingKind {
    Ping,
    Pong,
    Meet,
}

/// The content of a packet behind its head.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Body {
    Ping {
        kind: PingKind,
        gossip: Vec<Gossip>,
        extensions: Vec<Extension>,
    },
    /// A majority has found that the node with this name failed.
    Fail(Name),
    Publish(Publish),
    AuthRequest,
    AuthAck,
    /// The current slots of the node `node`, for a receiver that sent an outdated claim of slots.
    Update {
        config_epoch: u64,
        node: Name,
        slots: Rc<Bitmap>,
    },
    ManualFailoverStart,
    Module(Module),
}

/// A message of PUBLISH, or of SPUBLISH if it is `sharded`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Publish {
    pub sharded: bool,
    pub channel: Box<[u8]>,
    pub message: Box<[u8]>,
}

/// A message between Redis modules; aeris ignores it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Module {
    /// The id of the module.
    pub module: u64,
    /// The type of the module's message, which the module defines.
    pub kind: u8,
    pub data: Box<[u8]>,
}

/// A packet of the cluster bus.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Message {
    Full(Box<Header>, Body),
    /// A PUBLISH packet with a light head (Valkey 8).
    LightPublish(Publish),
    /// A MODULE packet with a light head (Valkey 8).
    LightModule(Module),
}

/// What a packet is used for, for the counters of the bus.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Purpose {
    Cluster,
    Published,
    Module,
}

mod kind {
    pub(super) const PING: u16 = 0;
    pub(super) const PONG: u16 = 1;
    pub(super) const MEET: u16 = 2;
    pub(super) const FAIL: u16 = 3;
    pub(super) const PUBLISH: u16 = 4;
    pub(super) const AUTH_REQUEST: u16 = 5;
    pub(super) const AUTH_ACK: u16 = 6;
    pub(super) const UPDATE: u16 = 7;
    pub(super) const MFSTART: u16 = 8;
    pub(super) const MODULE: u16 = 9;
    pub(super) const PUBLISH_SHARD: u16 = 10;
}

mod extension {
    pub(super) const HOST_NAME: u16 = 0;
    pub(super) const HUMAN_NAME: u16 = 1;
    pub(super) const FORGOTTEN: u16 = 2;
    pub(super) const SHARD_ID: u16 = 3;
    pub(super) const CLIENT_IPV4: u16 = 4;
    pub(super) const CLIENT_IPV6: u16 = 5;
    pub(super) const CLIENT_PORT: u16 = 6;
    pub(super) const CLIENT_TLS_PORT: u16 = 7;
    pub(super) const ZONE: u16 = 8;
}
