//! The table of the cluster's nodes in the view of this node.
//!
//! Nodes are in a slab and are named by their index, so a reference to a node (the owner of a slot,
//! a primary, a reporter) is two bytes. An index is used again after its node was removed, so
//! [`super::Cluster`] removes all references first (`forget_node`).
//!
//! **Invariant:** the table's fields `by_name` and `live` each have the index of each node once.

use std::collections::{HashMap, VecDeque};
use std::ops;

use super::config_file::NODES_MAX;
use super::event::{Address, LinkId, Texts};
use super::name::Name;
use super::packet::flag;
use super::reports::Reports;
use crate::link::Backoff;

/// The index of a node in this node's table of nodes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct NodeIndex(pub(super) u16);

impl NodeIndex {
    /// The index that stands for no node.
    pub(super) const NONE: NodeIndex = NodeIndex(u16::MAX);
}

/// A node of the cluster, as this node knows it. Times of a node are [`super::Now::ms`]; 0 means
/// never.
#[derive(Clone, Debug)]
pub struct Node {
    pub name: Name,
    pub shard: Name,
    /// The flags of the node, as bits of [`flag`].
    pub flags: u16,
    pub address: Address,
    pub texts: Option<Box<Texts>>,
    pub config_epoch: u64,
    pub replica_of: Option<NodeIndex>,
    /// The number of slots that the node owns.
    pub slot_count: u16,
    /// The time since which this node waits for an answer to a ping; 0 if it waits for none.
    pub ping_sent: u64,
    /// The time of the last PONG from the node, as [`super::Now::ms`].
    pub pong_received: u64,
    /// The times at which unanswered pings were sent over `link`; `answered_ping` is the time of
    /// the last answered ping.
    pub(super) pings: VecDeque<u64>,
    pub(super) answered_ping: u64,
    /// The replication offset that the node last reported.
    pub offset: u64,
    /// The link that this node opened to the other node; `inbound` is the link that the other node
    /// opened.
    pub link: Option<LinkId>,
    pub inbound: Option<LinkId>,
    /// Whether `link` is connected.
    pub connected: bool,
    pub(super) link_since: u64,
    pub(super) next_connect: u64,
    pub(super) backoff: Backoff,
    pub(super) created: u64,
    /// Whether the node is known only by gossip: it has not answered a ping of this node yet.
    pub(super) is_hearsay: bool,
    pub(super) data_received: u64,
    pub(super) failed_at: u64,
    pub(super) orphaned_at: u64,
    /// The replica of this primary for which this node voted last, and the time of that vote.
    pub(super) voted: Option<(NodeIndex, u64)>,
    pub(super) reports: Reports,
    /// The number of the last round of gossip that chose the node, so that a packet has it once.
    pub(super) gossip_mark: u32,
}

/// The maximum number of unanswered pings whose times are kept. The times of further pings are
/// dropped, so an answer may be taken for that of an earlier ping.
const PINGS_MAX: usize = 128;

impl Node {
    pub(super) fn new(name: Name, shard: Name, flags: u16, address: Address, now_ms: u64) -> Node {
        Node {
            name,
            shard,
            flags,
            address,
            texts: None,
            config_epoch: 0,
            replica_of: None,
            slot_count: 0,
            ping_sent: 0,
            pong_received: 0,
            pings: VecDeque::new(),
            answered_ping: 0,
            offset: 0,
            link: None,
            inbound: None,
            connected: false,
            link_since: 0,
            next_connect: 0,
            backoff: Backoff::default(),
            created: now_ms,
            is_hearsay: false,
            data_received: 0,
            failed_at: 0,
            orphaned_at: 0,
            voted: None,
            reports: Reports::default(),
            gossip_mark: 0,
        }
    }

    /// The node's name in log lines, as in Redis 8 and Valkey: `<name> (<human name>)`.
    pub fn called(&self) -> String {
        let human = self
            .texts
            .as_ref()
            .and_then(|texts| texts.human_name.as_deref());
        let human = String::from_utf8_lossy(human.unwrap_or_default());
        format!("{} ({human})", self.name)
    }

    /// Whether the node has at least one of the flags `flags`.
    pub fn has(&self, flags: u16) -> bool {
        self.flags & flags != 0
    }

    /// Notes the time at which a ping was sent over `link`.
    pub(super) fn note_ping(&mut self, now_ms: u64) {
        if self.pings.len() < PINGS_MAX {
            self.pings.push_back(now_ms);
        }
    }

    /// Notes an answer over `link`, which is taken for the answer to the oldest unanswered ping.
    pub(super) fn note_pong(&mut self) {
        if let Some(sent) = self.pings.pop_front() {
            self.answered_ping = sent;
        }
    }

    /// Whether the node is a primary in this node's view.
    pub fn is_primary(&self) -> bool {
        self.has(flag::PRIMARY)
    }

    /// Whether the node is a voter, which is a primary with slots.
    pub fn is_voter(&self) -> bool {
        self.is_primary() && self.slot_count > 0
    }
}

/// All nodes in the view of one node.
#[derive(Clone, Default, Debug)]
pub struct Nodes {
    slab: Vec<Option<Node>>,
    live: Vec<NodeIndex>,
    free: Vec<NodeIndex>,
    by_name: HashMap<Name, NodeIndex>,
}

impl Nodes {
    /// Adds a node; `None` if another node has its name, or there are too many nodes.
    pub(super) fn add(&mut self, node: Node) -> Option<NodeIndex> {
        if self.by_name.contains_key(&node.name) || self.live.len() >= NODES_MAX {
            return None;
        }
        let index = self.free.pop().unwrap_or_else(|| {
            self.slab.push(None);
            NodeIndex(self.slab.len() as u16 - 1)
        });
        self.by_name.insert(node.name, index);
        self.live.push(index);
        self.slab[usize::from(index.0)] = Some(node);
        Some(index)
    }

    pub(super) fn remove(&mut self, index: NodeIndex) {
        if let Some(node) = self.slab[usize::from(index.0)].take() {
            self.by_name.remove(&node.name);
            self.live.retain(|other| *other != index);
            self.free.push(index);
        }
    }

    /// Replaces the provisional name of a node in handshake by its true name. Returns false if
    /// another node has that name already.
    pub(super) fn rename(&mut self, index: NodeIndex, name: Name) -> bool {
        if self.by_name.contains_key(&name) {
            return false;
        }
        let before = self[index].name;
        self.by_name.remove(&before);
        self.by_name.insert(name, index);
        self[index].name = name;
        true
    }

    /// The node whose name is `name`.
    pub fn find(&self, name: &Name) -> Option<NodeIndex> {
        self.by_name.get(name).copied()
    }

    /// The number of nodes, nodes in handshake included.
    pub fn count(&self) -> usize {
        self.live.len()
    }

    /// The indices of all nodes, in no particular order.
    pub fn indices(&self) -> &[NodeIndex] {
        &self.live
    }

    /// All nodes, with their indices.
    pub fn iter(&self) -> impl Iterator<Item = (NodeIndex, &Node)> {
        self.live.iter().map(|index| (*index, &self[*index]))
    }

    /// The replicas of the node `primary`, with their indices.
    pub fn replicas_of(&self, primary: NodeIndex) -> impl Iterator<Item = (NodeIndex, &Node)> {
        self.iter()
            .filter(move |(_, node)| node.replica_of == Some(primary))
    }
}

impl ops::Index<NodeIndex> for Nodes {
    type Output = Node;

    fn index(&self, index: NodeIndex) -> &Node {
        self.slab[usize::from(index.0)]
            .as_ref()
            .expect("an index of a live node")
    }
}

impl ops::IndexMut<NodeIndex> for Nodes {
    fn index_mut(&mut self, index: NodeIndex) -> &mut Node {
        self.slab[usize::from(index.0)]
            .as_mut()
            .expect("an index of a live node")
    }
}
