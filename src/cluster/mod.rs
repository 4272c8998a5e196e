//! The cluster of Redis 7 and 8 and Valkey 8 and 9: one node's view and decisions, as a state
//! machine without socket, clock, disk and server.
//!
//! ```text
//!   sockets ── packet::frame_len, Message::parse ──┐                ┌── Message::encode ──> sockets
//!   clock ───── Event::Tick at Cluster::deadline ──┤                ├── Connect, Close
//!   replication ── Event::Replication ─────────────┼─> Cluster::step ┼── Save ──> nodes.conf ──> Event::Saved
//!   CLUSTER ... ── meet, failover, set_slot, ... ──┘    │           ├── Follow, Promote, Flush, Pause, Resume
//!                                                       │           └── DeleteKeys, TopologyChanged, State, Publish
//!        receive ─> claims, gossip, failure, election ──┘
//!        tick ────> links, pings, suspicion, migration
//! ```
//!
//! | file | what it decides |
//! |---|---|
//! | [`packet`], [`config_file`], [`name`], [`bitmap`] | the forms on the wire and on the disk |
//! | [`nodes`], `reports`, [`slots`] | the view: nodes, reports of failures, owners of slots |
//! | `machine` | the state, [`Cluster::step`], what is held back until it is on the disk |
//! | `receive`, `claims`, `gossip` | packets: identity, address, role; slots and epochs; news of others |
//! | `links`, `tick` | connections, pings, time-outs |
//! | `failure` | PFAIL, FAIL, whether the cluster is up |
//! | `election`, `manual`, `migration` | how a replica becomes a primary, and moves to an orphan |
//! | [`transfer`] | the atomic move of slots: a machine of its own |
//! | [`route`], [`topology`] | where a command runs; CLUSTER SLOTS and SHARDS |
//! | `verbs`, `conf` | CLUSTER's subcommands; the machine from nodes.conf and back |
//!
//! **For the owner**, the code that holds the state machine (`src/member`, or a simulation). The
//! owner executes the actions of each step in order, before the next step, and:
//!
//! - *Bus.* The owner listens on the bus port. For an accepted connection the owner calls
//!   [`Cluster::new_link`] and passes [`event::Event::Accepted`]; after `Connect` it passes
//!   `Connected` or `Closed`. The owner cuts the input into packets with [`packet::frame_len`];
//!   after a `Malformed` packet the owner closes the connection and passes `Closed`. Each packet is
//!   passed with the addresses of both ends of its connection. `Send` shares a message among links,
//!   so the owner encodes it once and keeps the bytes. The owner closes a link that exceeds
//!   `cluster-link-sendbuf-limit`.
//! - *Time.* The owner has one timer, at [`Cluster::deadline`]. After a late tick, the peers get
//!   more time to answer pings.
//! - *Disk.* At `Save` the owner renders [`Cluster::conf`] at once and writes the text in another
//!   thread; several waiting saves may become one write, and [`event::Event::Saved`] then has the
//!   token of the last save. Only votes, requests for votes and claims of slots wait for the disk:
//!   pings are sent meanwhile, with the state before the save.
//! - *Replication.* `Follow` and `Promote` may be executed only when no command runs.
//!   `Event::Replication` is sent when the offset changes, at most once in a turn, and before the
//!   tick that follows a `Pause`.
//! - *Keyspace.* [`slots::Slots::owner`] and `migrating`, `importing` decide redirects;
//!   [`Cluster::is_up`] decides CLUSTERDOWN. At `TopologyChanged` the owner drops cached replies
//!   and checks blocked clients again.
//!
//! **Time** is passed to the state machine ([`event::Now`]). Decisions use the monotonic clock
//! alone, so jumps of the wall clock cost some pings at most.
//!
//! **Invariant:** a voter votes once in an epoch and an epoch is won once, over restarts too;
//! config epochs do not fall; a node with slots is a primary; a primary that is cut off takes no
//! writes after the node timeout and two seconds; when all faults end, all nodes agree
//! (`tests/cluster_simulation`, which runs thousands of faulty clusters).
//! **Limits:** [`config_file::NODES_MAX`] nodes, one database. A tick walks all nodes, the reading
//! of a packet only the nodes that the packet names. The number of nodes with PFAIL in a ping is
//! not limited: with half of 1,000 nodes suspected at once, a ping has 500 entries, as in Redis and
//! Valkey.

pub mod bitmap;
mod claims;
mod conf;
pub mod config_file;
mod election;
pub mod event;
mod failure;
mod gossip;
mod links;
mod machine;
mod manual;
mod migration;
pub mod moves;
pub mod name;
pub mod nodes;
pub mod packet;
mod receive;
mod reports;
pub mod route;
pub mod slots;
#[cfg(test)]
mod tests;
mod tick;
pub mod topology;
pub mod transfer;
mod verbs;

pub use self::machine::{Cluster, Traffic};
pub use self::manual::ManualKind;
pub use self::moves::SetSlot;
pub use self::verbs::Outcome;
