//! The state of the cluster's state machine, its entry point [`Cluster::step`], and the end of each
//! step.

use std::collections::{BTreeMap, HashMap};
use std::rc::Rc;

use super::bitmap::Bitmap;
use super::election::Election;
use super::event::{Action, Event, LinkId, Now, Replication, Settings, Wire};
use super::links::Link;
use super::manual::Manual;
use super::name::Name;
use super::nodes::{Node, NodeIndex, Nodes};
use super::packet::{KINDS, flag};
use super::slots::Slots;
use crate::util::random::Random;

/// A message that a node may send only when its nodes.conf, with the epoch of the message, is on
/// the disk.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Held {
    /// The vote for `candidate` in the election of `epoch`.
    Vote { candidate: Name, epoch: u64 },
    /// The request for votes of this node's election in `epoch`.
    Request { epoch: u64 },
    /// The claim of slots under a new config epoch of this node.
    Claim,
}

/// The state of this node in the head of each packet that it sends. While a new config epoch waits
/// for the disk, heads have the state before that epoch, so that pings go on.
#[derive(Clone, Debug, Default)]
pub(super) struct Announced {
    pub(super) config_epoch: u64,
    pub(super) slots: Rc<Bitmap>,
    pub(super) replica_of: Option<Name>,
    pub(super) flags: u16,
}

/// The work that handling an event leaves for the end of the cluster state machine's step.
#[derive(Clone, Copy, Default, Debug)]
pub(super) struct Todo {
    pub(super) save: bool,
    pub(super) health: bool,
    pub(super) election: bool,
    pub(super) announce: bool,
    pub(super) topology: bool,
    /// Whether to send a PONG to all nodes.
    pub(super) broadcast: bool,
}

/// The number of packets of each type (PING, FAIL and so on).
pub type Traffic = [u64; KINDS];

/// The cluster's state machine of one node: its view of the cluster and its decisions, see the
/// header of `src/cluster/mod.rs`.
pub struct Cluster {
    pub(super) settings: Settings,
    pub(super) random: Random,
    pub(super) me: NodeIndex,
    pub(super) nodes: Nodes,
    pub(super) slots: Slots,
    pub(super) current_epoch: u64,
    pub(super) last_vote_epoch: u64,
    /// The candidate for which this node voted last since its start, and the epoch of that vote.
    pub(super) last_vote: Option<(Name, u64)>,
    pub(super) links: HashMap<LinkId, Link>,
    pub(super) last_link: u64,
    pub(super) replication: Replication,
    pub(super) announced: Announced,
    pub(super) todo: Todo,
    /// The number of the last save of nodes.conf; the messages in `waiting` are held back, each
    /// until the save with its number is on the disk.
    pub(super) last_save: u64,
    pub(super) waiting: Vec<(u64, Held)>,
    /// The nodes with PFAIL, all of which are in the gossip of each packet.
    pub(super) suspects: Vec<NodeIndex>,
    /// The failed nodes for which this node will send FAIL to all nodes, with the times of sending.
    pub(super) notices: Vec<(NodeIndex, u64)>,
    /// The number of voters, which are the primaries with slots.
    pub(super) size: usize,
    pub(super) up: bool,
    /// The last logged reason why the cluster is down; `None` if it is up.
    pub(super) down_reason: Option<&'static str>,
    /// The time until which this node takes no writes, as a primary that was cut off from a
    /// majority, stopped or just started.
    pub(super) down_until: u64,
    /// Whether this node can't reach a majority of the voters.
    pub(super) minority: bool,
    pub(super) ticks: u64,
    pub(super) last_tick: u64,
    pub(super) last_random_ping: u64,
    pub(super) election: Election,
    pub(super) manual: Manual,
    /// Nodes that CLUSTER FORGET removed, with the times until which gossip does not add them
    /// again.
    pub(super) blacklist: BTreeMap<Name, u64>,
    pub(super) gossip_round: u32,
    pub(super) sent: Traffic,
    pub(super) received: Traffic,
    /// Switches for tests: whether a random node is pinged each second, and whether lost links are
    /// connected again.
    pub(super) random_ping: bool,
    pub(super) reconnect: bool,
}

/// The time after a start in which a primary takes no writes, so that it can first receive the
/// claim of a replica that replaced it meanwhile.
const WRITABLE_DELAY_MS: u64 = 2000;

impl Cluster {
    /// Makes the state of a new node, which knows no other node.
    pub fn new(now: Now, settings: Settings, mut random: Random) -> Cluster {
        let (name, shard) = (Name::random(&mut random), Name::random(&mut random));
        Cluster::start(now, settings, random, name, shard)
    }

    pub(super) fn start(
        now: Now,
        settings: Settings,
        random: Random,
        name: Name,
        shard: Name,
    ) -> Cluster {
        let mut nodes = Nodes::default();
        let flags = flag::PRIMARY | flag::MYSELF;
        let me = Node::new(name, shard, flags, settings.announced, now.ms);
        let me = nodes.add(me).expect("the first node");
        let mut cluster = Cluster {
            settings,
            random,
            me,
            nodes,
            slots: Slots::default(),
            current_epoch: 0,
            last_vote_epoch: 0,
            last_vote: None,
            links: HashMap::new(),
            last_link: 0,
            replication: Replication::default(),
            announced: Announced::default(),
            todo: Todo::default(),
            last_save: 0,
            waiting: Vec::new(),
            suspects: Vec::new(),
            notices: Vec::new(),
            size: 0,
            up: false,
            down_reason: None,
            down_until: now.ms + WRITABLE_DELAY_MS,
            minority: true,
            ticks: 0,
            last_tick: now.ms,
            last_random_ping: now.ms,
            election: Election::default(),
            manual: Manual::default(),
            blacklist: BTreeMap::new(),
            gossip_round: 0,
            sent: [0; KINDS],
            received: [0; KINDS],
            random_ping: true,
            reconnect: true,
        };
        cluster.apply_settings();
        cluster.announce();
        cluster
    }

    /// Replaces the settings of the state machine, for CONFIG SET.
    pub fn configure(&mut self, settings: Settings) {
        self.settings = settings;
        self.apply_settings();
        self.todo.announce = true;
        self.todo.save = true;
    }

    fn apply_settings(&mut self) {
        let (announced, no_failover) = (self.settings.announced, self.settings.no_failover);
        let texts = self.settings.texts.clone();
        let me = &mut self.nodes[self.me];
        let other = me.texts.take().map(|texts| texts.other);
        let mut texts = Box::new(texts);
        texts.other = other.unwrap_or_default();
        me.texts = Some(texts);
        let ip = if announced.ip.is_empty() {
            me.address.ip
        } else {
            announced.ip
        };
        me.address = announced;
        me.address.ip = ip;
        me.flags &= !flag::NO_FAILOVER;
        me.flags |= if no_failover { flag::NO_FAILOVER } else { 0 };
    }

    /// Returns a number for an accepted connection of the bus, for [`Event::Accepted`].
    pub fn new_link(&mut self) -> LinkId {
        self.last_link += 1;
        LinkId(self.last_link)
    }

    /// Sets, for tests, whether a random node is pinged each second.
    pub fn set_random_ping(&mut self, on: bool) {
        self.random_ping = on;
    }

    /// Sets, for tests, whether lost links are connected again.
    pub fn set_reconnect(&mut self, on: bool) {
        self.reconnect = on;
    }

    /// Changes the state by an event; appends to `out` the actions that the server must execute.
    pub fn step(&mut self, now: Now, event: Event, out: &mut Vec<Action>) {
        self.notice_pause(now, out);
        match event {
            Event::Tick => self.tick(now, out),
            Event::Connected(link) => self.link_connected(now, link, out),
            Event::Accepted(link) => self.link_accepted(now, link),
            Event::Closed(link) => self.link_closed(now, link),
            Event::Packet {
                link,
                peer,
                local,
                message,
            } => self.receive(now, link, [peer, local], message, out),
            Event::Replication(replication) => {
                self.replication = replication;
                self.nodes[self.me].offset = replication.offset;
                self.todo.election |= self.manual.is_running();
            }
            Event::Saved(token) => self.saved(now, token, out),
        }
        self.finish(now, out);
    }

    /// The time of the next [`Event::Tick`]: at most 100 ms after the last tick, and earlier if an
    /// election or a FAIL packet is due.
    pub fn deadline(&self) -> u64 {
        let periodic = self.last_tick + super::tick::TICK_MS;
        let notices = self.notices.iter().map(|(_, at)| *at);
        notices
            .chain(self.election_deadline())
            .fold(periodic, u64::min)
    }

    /// Ends a step of the state machine. The election comes after the health, which it reads; the
    /// announced state depends on health and election; and the save must include all changes.
    pub(super) fn finish(&mut self, now: Now, out: &mut Vec<Action>) {
        self.send_notices(now, out);
        if std::mem::take(&mut self.todo.health) {
            self.update_health(now, out);
        }
        if std::mem::take(&mut self.todo.election) {
            self.run_manual(now, out);
            self.run_election(now, out);
        }
        if self.todo.announce && !self.is_claim_held() {
            self.announce();
        }
        if std::mem::take(&mut self.todo.save) {
            self.last_save += 1;
            let token = self.last_save;
            let durable = self.waiting.iter().any(|(other, _)| *other == token);
            out.push(Action::Save { token, durable });
        }
        if self.todo.broadcast && !self.is_claim_held() {
            self.todo.broadcast = false;
            self.broadcast_pong(now, out);
        }
        if std::mem::take(&mut self.todo.topology) {
            out.push(Action::TopologyChanged);
        }
    }

    /// Holds back a vote, a request for votes or a claim of slots until the nodes.conf of the end
    /// of the present step is on the disk.
    pub(super) fn hold(&mut self, held: Held) {
        self.waiting.push((self.last_save + 1, held));
        self.todo.save = true;
    }

    pub(super) fn is_claim_held(&self) -> bool {
        self.waiting.iter().any(|(_, held)| *held == Held::Claim)
    }

    fn saved(&mut self, now: Now, token: u64, out: &mut Vec<Action>) {
        let (done, left) = std::mem::take(&mut self.waiting)
            .into_iter()
            .partition(|(other, _)| *other <= token);
        self.waiting = left;
        let done: Vec<(u64, Held)> = done;
        for (_, held) in done {
            match held {
                Held::Vote { candidate, epoch } => self.send_vote(candidate, epoch, out),
                Held::Request { epoch } => self.request_votes(now, epoch, out),
                Held::Claim => {
                    self.todo.announce = true;
                    self.todo.broadcast = true;
                }
            }
        }
    }

    /// Updates the state of this node in the heads of the packets that it sends.
    pub(super) fn announce(&mut self) {
        self.todo.announce = false;
        let me = &self.nodes[self.me];
        let primary = me.replica_of.unwrap_or(self.me);
        let primary_failed = primary != self.me && self.nodes[primary].has(flag::FAIL);
        let mut flags = me.flags | flag::LIGHT_PUBLISH;
        if primary_failed {
            flags |= flag::PRIMARY_FAILED;
        }
        self.announced = Announced {
            config_epoch: self.nodes[primary].config_epoch,
            slots: Rc::new(self.slots.of(primary)),
            replica_of: me.replica_of.map(|primary| self.nodes[primary].name),
            flags,
        };
    }

    /// The primary of this node's shard: this node itself, or the primary that this node
    /// replicates.
    pub(super) fn my_primary(&self) -> NodeIndex {
        self.nodes[self.me].replica_of.unwrap_or(self.me)
    }

    /// Makes `owner` the owner of a slot; with `None` the slot has no owner.
    pub(super) fn set_owner(&mut self, slot: u16, owner: Option<NodeIndex>) {
        let before = self.slots.replace(slot, owner);
        if before == owner {
            return;
        }
        if let Some(before) = before {
            self.nodes[before].slot_count -= 1;
        }
        if let Some(owner) = owner {
            let is_its_first = self.nodes[owner].slot_count == 0;
            self.nodes[owner].slot_count += 1;
            // Replicas may move to a primary that gets its first slot in a cluster with replicas.
            if is_its_first && self.nodes.iter().any(|(_, node)| node.replica_of.is_some()) {
                self.nodes[owner].flags |= flag::MIGRATE_TO;
            }
        }
        self.todo.save = true;
        self.todo.health = true;
        self.todo.announce = true;
        self.todo.topology = true;
    }

    /// Makes the node at `index`, which may be this node, a primary in this node's view.
    pub(super) fn set_as_primary(&mut self, index: NodeIndex) {
        let node = &mut self.nodes[index];
        if node.is_primary() {
            return;
        }
        let was_replica = node.replica_of.take().is_some();
        node.flags = node.flags & !flag::REPLICA | flag::PRIMARY;
        // The shard of the new primary had a replica, so another replica may move to the shard.
        if was_replica && index != self.me {
            node.flags |= flag::MIGRATE_TO;
        }
        self.todo.save = true;
        self.todo.health = true;
        self.todo.announce = true;
        self.todo.topology = true;
    }

    /// Makes the node at `index` a replica in this node's view.
    pub(super) fn set_as_replica(&mut self, index: NodeIndex, primary: Option<NodeIndex>) {
        if let Some(primary) = primary.filter(|primary| self.share_shard(index, *primary)) {
            self.redirect_moves(index, primary);
        }
        let node = &mut self.nodes[index];
        node.flags = node.flags & !(flag::PRIMARY | flag::MIGRATE_TO) | flag::REPLICA;
        node.replica_of = primary;
        if let Some(primary) = primary {
            self.nodes[index].shard = self.nodes[primary].shard;
            self.nodes[primary].flags |= flag::MIGRATE_TO;
        }
        self.todo.save = true;
        self.todo.health = true;
        self.todo.announce = true;
        self.todo.topology = true;
    }

    /// Makes this node, which must own no slots, a replica of `target`.
    pub(super) fn follow(&mut self, target: NodeIndex, out: &mut Vec<Action>) {
        // A replica of a replica would not be elected, so follow the primary of the target.
        let target = self.nodes[target].replica_of.unwrap_or(target);
        let owns = self.nodes[self.me].slot_count > 0;
        if target == self.me || owns || self.nodes[target].replica_of.is_some() {
            return;
        }
        let keeps_data = self.share_shard(self.me, target);
        if !keeps_data {
            self.slots.close_all();
            // This node's offset belongs to the history of another primary, so it must not count
            // for the rank among the new primary's replicas.
            self.replication.offset = 0;
            self.nodes[self.me].offset = 0;
        }
        self.set_as_replica(self.me, Some(target));
        self.reset_manual(out);
        self.election = Election::default();
        let target = &self.nodes[target];
        out.push(Action::Follow {
            primary: target.name,
            address: target.address,
            keeps_data,
        });
    }

    /// Removes another node from this node's view, and all references to that node.
    pub(super) fn forget_node(&mut self, index: NodeIndex, out: &mut Vec<Action>) {
        let links = [self.nodes[index].link, self.nodes[index].inbound];
        for link in links.into_iter().flatten() {
            self.links.remove(&link);
            out.push(Action::Wire(Wire::Close(link)));
        }
        for slot in self.slots.of(index).iter() {
            self.set_owner(slot, None);
        }
        self.slots.migrating.retain(|_, node| *node != index);
        self.slots.importing.retain(|_, node| *node != index);
        self.suspects.retain(|node| *node != index);
        self.notices.retain(|(node, _)| *node != index);
        self.election.forget(index);
        if self.manual.replica == Some(index) {
            self.reset_manual(out);
        }
        for at in 0..self.nodes.count() {
            let other = self.nodes.indices()[at];
            let node = &mut self.nodes[other];
            node.reports.remove(index);
            if node.replica_of == Some(index) {
                node.replica_of = None;
            }
            if node.voted.is_some_and(|(candidate, _)| candidate == index) {
                node.voted = None;
            }
        }
        self.nodes.remove(index);
        self.todo.save = true;
        self.todo.health = true;
        self.todo.announce = true;
        self.todo.topology = true;
    }

    pub(super) fn log(&self, level: log::Level, text: String, out: &mut Vec<Action>) {
        out.push(Action::Log(level, text));
    }

    /// Logs a line about roles, with the words of Redis (master, slave) or of Valkey (primary,
    /// replica).
    pub(super) fn line(
        &self,
        template: &str,
        arguments: &[&dyn std::fmt::Display],
        out: &mut Vec<Action>,
    ) {
        let text = self.settings.words.line(template, arguments);
        out.push(Action::Log(log::Level::Info, text));
    }
}

/// Methods by which commands read the state of the cluster.
impl Cluster {
    /// The entry of this node in its own view.
    pub fn myself(&self) -> &Node {
        &self.nodes[self.me]
    }

    /// All nodes in this node's view.
    pub fn nodes(&self) -> &Nodes {
        &self.nodes
    }

    /// The owners of all slots, in this node's view.
    pub fn slots(&self) -> &Slots {
        &self.slots
    }

    /// The slots that this node owns.
    pub fn own_slots(&self) -> Bitmap {
        self.slots.of(self.me)
    }

    /// The replication state of this node, from the last [`Event::Replication`].
    pub fn replication(&self) -> &Replication {
        &self.replication
    }

    /// The settings that the state machine uses.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Whether the cluster is up in the view of this node.
    pub fn is_up(&self) -> bool {
        self.up
    }

    /// The current epoch: the highest epoch that this node has seen.
    pub fn current_epoch(&self) -> u64 {
        self.current_epoch
    }

    /// The epoch of the last vote of this node.
    pub fn last_vote_epoch(&self) -> u64 {
        self.last_vote_epoch
    }

    /// The number of primaries with slots.
    pub fn size(&self) -> usize {
        self.size
    }

    /// The number of packets sent and of packets received, by type.
    pub fn traffic(&self) -> (&Traffic, &Traffic) {
        (&self.sent, &self.received)
    }
}
