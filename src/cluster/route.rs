//! Decides where a command runs: at this node, or at the owner of the slot of its keys.
//!
//! ```text
//!   no owner ──────────────────────────────────> CLUSTERDOWN Hash slot not served
//!   keys of several slots ─────────────────────> CROSSSLOT
//!   cluster down, and the settings forbid it ──> CLUSTERDOWN The cluster is down [...]
//!   MIGRATE of a slot that moves ──────────────> here
//!   slot leaves: no key is here ───────────────> ASK    some are, some not: TRYAGAIN
//!   slot arrives, and the client is ASKING ────> here   several keys, and one is missing: TRYAGAIN
//!       (both also at a replica, for a read after READONLY)
//!   replica of the owner: shard channel, or a read after READONLY ──> here
//!   owner ─────────────────────────────────────> here or MOVED
//! ```
//!
//! The checks of a command's route are in the order of Redis 7.0 and 8.2. For most commands the
//! check [`Cluster::serves`] is enough.

use super::Cluster;
use super::nodes::NodeIndex;
use super::packet::flag;
use super::slots::Owned;

/// The properties of a command, or of a whole transaction, that decide where it runs.
#[derive(Clone, Copy, Default, Debug)]
pub struct Request {
    /// The slot of the request's first key or shard channel.
    pub slot: u16,
    /// Whether the request has a key in another slot than `slot`.
    pub is_cross_slot: bool,
    /// Whether the request has at least two different keys.
    pub has_several: bool,
    /// Whether this node lacks at least one key of the request; `is_present` is whether this node
    /// has at least one key of the request. `is_missing` and `is_present` are only read if the slot
    /// is being moved.
    pub is_missing: bool,
    pub is_present: bool,
    pub writes: bool,
    /// Whether the request uses shard channels.
    pub has_channels: bool,
    pub is_migrate: bool,
    /// Whether the client sent ASKING before, or the command implies ASKING.
    pub asking: bool,
    /// Whether the client may read from replicas, as it sent READONLY.
    pub readonly: bool,
}

/// The requests that are served while the cluster is down.
#[derive(Clone, Copy, Default, Debug)]
pub struct WhenDown {
    /// The setting `cluster-allow-reads-when-down`.
    pub reads: bool,
    /// The setting `cluster-allow-pubsubshard-when-down`.
    pub channels: bool,
}

/// The node where a request runs, or the reason why it is refused.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Route {
    Here,
    /// The request must be sent to the slot's owner (the reply MOVED).
    Moved(NodeIndex),
    /// The request must be sent, after ASKING, to the node that imports the slot (the reply ASK).
    Ask(NodeIndex),
    CrossSlot,
    TryAgain,
    /// The slot of the request has no owner.
    Unserved,
    Down,
    /// The cluster is down and serves only reads, but the request writes.
    DownForWrites,
}

impl Route {
    /// The error reply of a refused request; `None` for routes to a node.
    pub fn text(self) -> Option<&'static str> {
        match self {
            Route::Here | Route::Moved(_) | Route::Ask(_) => None,
            Route::CrossSlot => Some("CROSSSLOT Keys in request don't hash to the same slot"),
            Route::TryAgain => Some("TRYAGAIN Multiple keys request during rehashing of slot"),
            Route::Unserved => Some("CLUSTERDOWN Hash slot not served"),
            Route::Down => Some("CLUSTERDOWN The cluster is down"),
            Route::DownForWrites => {
                Some("CLUSTERDOWN The cluster is down and only accepts read commands")
            }
        }
    }
}

impl Cluster {
    /// Whether each command on `slot` runs at this node, whatever its keys and its client are.
    #[inline]
    pub fn serves(&self, slot: u16) -> bool {
        self.up && self.slots.is_owner(slot, self.me) && !self.slots.is_migrating(slot)
    }

    /// The slots for which [`Cluster::serves`] holds; `None` while the cluster is down or a slot
    /// moves to another node.
    pub fn served(&self) -> Option<Owned<'_>> {
        let all = self.up && self.slots.migrating.is_empty();
        all.then(|| self.slots.owned(self.me))
    }

    /// Whether the slot is being moved, so that [`Cluster::route`] needs to know which keys this
    /// node has.
    pub fn moves(&self, slot: u16) -> bool {
        self.leaves_to(slot).is_some() || self.slots.importing.contains_key(&slot)
    }

    /// The node to which a slot of this node's shard is being moved.
    fn leaves_to(&self, slot: u16) -> Option<NodeIndex> {
        let target = self.slots.migrating.get(&slot).copied();
        target.filter(|_| self.is_of_shard(slot))
    }

    /// Decides where a request runs.
    pub fn route(&self, request: &Request, when_down: WhenDown) -> Route {
        let slot = request.slot;
        let Some(owner) = self.slots.owner(slot) else {
            return Route::Unserved;
        };
        if request.is_cross_slot {
            return Route::CrossSlot;
        }
        if !self.up {
            match request.has_channels {
                true if !when_down.channels => return Route::Down,
                false if !when_down.reads => return Route::Down,
                false if request.writes => return Route::DownForWrites,
                _ => {}
            }
        }
        // A replica knows which slots of its primary move, and redirects its reading clients as the
        // primary would.
        let reads = request.readonly && !request.writes;
        let answers = reads || self.nodes[self.me].is_primary();
        let leaves_to = self.leaves_to(slot).filter(|_| answers);
        let arrives = answers && leaves_to.is_none() && self.slots.importing.contains_key(&slot);
        if request.is_migrate && (leaves_to.is_some() || arrives) {
            return Route::Here;
        }
        if let Some(target) = leaves_to.filter(|_| request.is_missing) {
            return match request.is_present {
                true => Route::TryAgain,
                false => Route::Ask(target),
            };
        }
        if arrives && request.asking {
            return match request.has_several && request.is_missing {
                true => Route::TryAgain,
                false => Route::Here,
            };
        }
        let reads = reads || request.has_channels && !request.writes;
        match owner == self.me || reads && self.copies(owner) {
            true => Route::Here,
            false => Route::Moved(owner),
        }
    }

    /// The route of a client that is blocked on a key in `slot`. `reads` is whether its command may
    /// run on a replica.
    pub fn route_of_waiting(&self, slot: u16, reads: bool) -> Route {
        match self.slots.owner(slot) {
            _ if !self.up => Route::Down,
            Some(owner) if owner == self.me || reads && self.copies(owner) => Route::Here,
            _ if self.slots.importing.contains_key(&slot) => Route::Here,
            Some(owner) => Route::Moved(owner),
            None => Route::Unserved,
        }
    }

    /// The slots of this node's shard.
    pub fn shard_slots(&self) -> Vec<u16> {
        self.slots.of(self.my_primary()).iter().collect()
    }

    /// Whether a slot belongs to this node's shard.
    pub fn is_of_shard(&self, slot: u16) -> bool {
        self.slots.is_owner(slot, self.my_primary())
    }

    /// Whether clients stay subscribed to the shard channels of a slot: the slot belongs to this
    /// node's shard, or moves to this node.
    pub fn keeps_channels(&self, slot: u16) -> bool {
        self.is_of_shard(slot) || self.slots.importing.contains_key(&slot)
    }

    /// Whether this node is a replica of `primary`.
    fn copies(&self, primary: NodeIndex) -> bool {
        let me = &self.nodes[self.me];
        me.has(flag::REPLICA) && me.replica_of == Some(primary)
    }
}

#[cfg(test)]
mod tests {
    use super::super::name::Name;
    use super::super::nodes::Node;
    use super::*;
    use crate::cluster::event::{Address, Now, Settings};
    use crate::util::random::Random;

    const MINE: u16 = 1;
    const OTHERS: u16 = 2;
    const NO_ONES: u16 = 3;
    const LEAVING: u16 = 4;
    const ARRIVING: u16 = 5;

    /// The view of one node in a cluster of two nodes that are up, and the index of the other node.
    fn cluster() -> (Cluster, NodeIndex) {
        let now = Now { ms: 1, wall_ms: 1 };
        let mut cluster = Cluster::new(now, Settings::default(), Random::from_seed(1));
        let name = Name::parse(&[b'a'; 40]).expect("a name");
        let other = Node::new(name, name, flag::PRIMARY, Address::default(), 1);
        let other = cluster.nodes.add(other).expect("the second node");
        for slot in [MINE, LEAVING] {
            cluster.set_owner(slot, Some(cluster.me));
        }
        for slot in [OTHERS, ARRIVING] {
            cluster.set_owner(slot, Some(other));
        }
        cluster.slots.migrating.insert(LEAVING, other);
        cluster.slots.importing.insert(ARRIVING, other);
        cluster.up = true;
        (cluster, other)
    }

    fn read(slot: u16) -> Request {
        Request {
            slot,
            ..Request::default()
        }
    }

    fn write(slot: u16) -> Request {
        Request {
            writes: true,
            ..read(slot)
        }
    }

    #[test]
    fn a_command_runs_at_the_owner() {
        let (cluster, other) = cluster();
        let route = |request: Request| cluster.route(&request, WhenDown::default());
        assert_eq!(route(read(MINE)), Route::Here);
        assert_eq!(route(write(OTHERS)), Route::Moved(other));
        assert_eq!(route(read(NO_ONES)), Route::Unserved);
        let cross = |slot| Request {
            is_cross_slot: true,
            ..read(slot)
        };
        assert_eq!(route(cross(OTHERS)), Route::CrossSlot);
        assert_eq!(route(cross(NO_ONES)), Route::Unserved);
        let served: Vec<u16> = (0..6).filter(|slot| cluster.serves(*slot)).collect();
        assert_eq!(served, [MINE]);
        let moving: Vec<u16> = (0..6).filter(|slot| cluster.moves(*slot)).collect();
        assert_eq!(moving, [LEAVING, ARRIVING]);
    }

    #[test]
    fn a_slot_that_leaves_asks_for_missing_keys() {
        let (cluster, other) = cluster();
        let route = |is_present, is_missing, is_migrate| {
            let request = Request {
                is_present,
                is_missing,
                is_migrate,
                ..write(LEAVING)
            };
            cluster.route(&request, WhenDown::default())
        };
        assert_eq!(route(true, false, false), Route::Here);
        assert_eq!(route(false, true, false), Route::Ask(other));
        assert_eq!(route(true, true, false), Route::TryAgain);
        assert_eq!(route(false, true, true), Route::Here);
    }

    #[test]
    fn a_slot_that_arrives_serves_clients_that_ask() {
        let (cluster, other) = cluster();
        let route = |asking, has_several, is_missing| {
            let request = Request {
                asking,
                has_several,
                is_missing,
                ..write(ARRIVING)
            };
            cluster.route(&request, WhenDown::default())
        };
        assert_eq!(route(false, false, false), Route::Moved(other));
        assert_eq!(route(true, false, true), Route::Here);
        assert_eq!(route(true, true, false), Route::Here);
        assert_eq!(route(true, true, true), Route::TryAgain);
        assert_eq!(route(false, true, true), Route::Moved(other));
    }

    #[test]
    fn a_replica_serves_readers_and_shard_channels() {
        let (mut cluster, other) = cluster();
        cluster.nodes[cluster.me].flags = flag::REPLICA | flag::MYSELF;
        cluster.nodes[cluster.me].replica_of = Some(other);
        let route = |request: Request| cluster.route(&request, WhenDown::default());
        let readonly = |request| Request {
            readonly: true,
            ..request
        };
        assert_eq!(route(read(OTHERS)), Route::Moved(other));
        assert_eq!(route(readonly(read(OTHERS))), Route::Here);
        assert_eq!(route(readonly(write(OTHERS))), Route::Moved(other));
        let channel = Request {
            has_channels: true,
            ..read(OTHERS)
        };
        assert_eq!(route(channel), Route::Here);
        assert!(cluster.keeps_channels(OTHERS) && !cluster.keeps_channels(MINE));
        assert_eq!(cluster.route_of_waiting(OTHERS, true), Route::Here);
        assert_eq!(cluster.route_of_waiting(OTHERS, false), Route::Moved(other));
    }

    #[test]
    fn a_replica_knows_what_moves() {
        let (mut cluster, other) = cluster();
        let (me, third) = (cluster.me, cluster.slots.migrating[&LEAVING]);
        // The replica's primary owns the slot LEAVING, and imports the slot ARRIVING.
        let name = Name::parse(&[b'b'; 40]).expect("a name");
        let node = Node::new(name, name, flag::PRIMARY, Address::default(), 1);
        let primary = cluster.nodes.add(node).expect("the third node");
        cluster.set_owner(LEAVING, Some(primary));
        cluster.nodes[me].flags = flag::REPLICA | flag::MYSELF;
        cluster.nodes[me].replica_of = Some(primary);
        let route = |request: Request| cluster.route(&request, WhenDown::default());
        let with = |request: Request, is_present, is_missing, has_several| Request {
            readonly: true,
            is_present,
            is_missing,
            has_several,
            ..request
        };
        assert_eq!(route(read(LEAVING)), Route::Moved(primary));
        assert_eq!(route(with(read(LEAVING), true, false, false)), Route::Here);
        assert_eq!(
            route(with(read(LEAVING), false, true, false)),
            Route::Ask(third)
        );
        assert_eq!(
            route(with(read(LEAVING), true, true, true)),
            Route::TryAgain
        );
        assert_eq!(
            route(with(write(LEAVING), false, true, false)),
            Route::Moved(primary)
        );
        let asking = |request: Request| Request {
            asking: true,
            ..request
        };
        assert_eq!(
            route(asking(with(read(ARRIVING), false, true, true))),
            Route::TryAgain
        );
        assert_eq!(
            route(asking(with(read(ARRIVING), true, false, true))),
            Route::Here
        );
        assert_eq!(
            route(asking(with(write(ARRIVING), true, false, false))),
            Route::Moved(other)
        );
        assert_eq!(route(asking(read(ARRIVING))), Route::Moved(other));
    }

    #[test]
    fn a_cluster_that_is_down_serves_what_the_settings_allow() {
        let (mut cluster, _) = cluster();
        cluster.up = false;
        let allowed = |reads, channels, request: Request| {
            cluster.route(&request, WhenDown { reads, channels })
        };
        let channel = Request {
            has_channels: true,
            ..read(MINE)
        };
        assert_eq!(allowed(false, true, read(MINE)), Route::Down);
        assert_eq!(allowed(false, true, channel), Route::Here);
        assert_eq!(allowed(true, false, channel), Route::Down);
        assert_eq!(allowed(true, false, read(MINE)), Route::Here);
        assert_eq!(allowed(true, false, write(MINE)), Route::DownForWrites);
        assert_eq!(allowed(false, false, read(NO_ONES)), Route::Unserved);
        assert!(!cluster.serves(MINE));
        assert_eq!(cluster.route_of_waiting(MINE, false), Route::Down);
    }

    #[test]
    fn clients_that_wait_stay_while_the_slot_arrives() {
        let (cluster, other) = cluster();
        let route = |slot| cluster.route_of_waiting(slot, false);
        assert_eq!(route(MINE), Route::Here);
        assert_eq!(route(ARRIVING), Route::Here);
        assert_eq!(route(LEAVING), Route::Here);
        assert_eq!(route(OTHERS), Route::Moved(other));
        assert_eq!(route(NO_ONES), Route::Unserved);
        assert!(cluster.keeps_channels(ARRIVING) && !cluster.keeps_channels(OTHERS));
    }
}
