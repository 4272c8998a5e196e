//! Elections: a replica asks for votes to replace its failed primary, and the primaries with slots,
//! the voters, answer.
//!
//! ```text
//!            the primary failed              the time came         a majority      slots are claimed
//!    Idle ─────────────────────> Scheduled ────────────────> Asking ───────────> under the epoch
//!      ^                              ^                     │      │              of the election
//!      │ it answers again             │ another election    │      │ no majority
//!      └──────────────────────────────┴─ took the epoch ────┘      └──> Failed, scheduled again later
//! ```
//!
//! A voter votes once in each epoch, so of all elections that run at once only one wins in an
//! epoch. In Redis, a failed election is repeated after four node timeouts. When hundreds of
//! primaries fail together, most elections collide, and shards stay down for minutes. In aeris,
//! elections follow each other at short intervals and are repeated early:
//!
//! - The delay of a replica's election grows with two ranks: the rank of the failed primary among
//!   all failed primaries, by the names of their shards, so that elections follow each other at
//!   short intervals; and the rank of the replica among the replicas of its primary, by their
//!   offsets.
//! - The replica with the highest offset of the first failed shard begins at once if all other
//!   replicas of its primary agree that the primary failed. Voters that do not know of the failure
//!   yet refuse, so a request for votes is repeated in the same epoch: a voter that has refused may
//!   still vote, and a voter that has voted repeats its vote, which counts once.
//! - If the epoch of an election was taken by another election, or the votes were split, a new
//!   election begins after a random wait that doubles each time. A new election contradicts no
//!   vote, since it has a new epoch.
//! - A voter that voted for a replica does not vote for another replica of the same shard within
//!   two node timeouts, so that the winner can announce itself; but the voter may vote for the same
//!   replica again.
//!
//! **Invariant:** a vote is on the disk before it is sent, and so is the epoch of a request for
//! votes ([`Held`]). A vote carries the epoch of its election in the head, not the epoch known when
//! it is sent, and counts only if that epoch is the epoch of the candidate's request.

use std::collections::BTreeSet;
use std::rc::Rc;

use super::event::{Action, Now};
use super::machine::{Cluster, Held};
use super::name::Name;
use super::nodes::{Node, NodeIndex};
use super::packet::{Body, Header, Message, flag, message_flag};

/// The progress of the election in which this node is the candidate.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
enum Phase {
    #[default]
    Idle,
    /// The request for votes is sent at the time `at`, or at `earliest` if this replica has the
    /// highest offset and all other replicas of the primary agree that it failed.
    Scheduled { at: u64, earliest: u64 },
    Asking {
        epoch: u64,
        since: u64,
        /// The time at which the request for votes is repeated; `None` until the epoch of the
        /// election is on the disk and the request was sent.
        repeat_at: Option<u64>,
        votes: BTreeSet<NodeIndex>,
    },
    /// The election failed; the next election of this node may be scheduled at the time `until`.
    Failed { until: u64 },
    /// The manual failover to which the election belonged has timed out, so its votes do not count
    /// any more.
    Abandoned { epoch: u64 },
}

/// The election in which this node is a candidate; `Idle` if there is none.
#[derive(Clone, Default, Debug)]
pub(super) struct Election {
    phase: Phase,
    /// This replica's rank by offset among the replicas of its primary, which the scheduled time
    /// includes.
    rank: u64,
    /// The number of elections of this node that ended without a majority; each of them doubles the
    /// longest wait before the next election.
    collisions: u32,
}

impl Election {
    /// Drops the vote of a node that is removed from the cluster.
    pub(super) fn forget(&mut self, index: NodeIndex) {
        if let Phase::Asking { votes, .. } = &mut self.phase {
            votes.remove(&index);
        }
    }

    /// Ends an election whose manual failover has timed out: later votes for that election don't
    /// count.
    pub(super) fn abandon(&mut self) {
        self.phase = match self.phase {
            Phase::Asking { epoch, .. } | Phase::Abandoned { epoch } => Phase::Abandoned { epoch },
            _ => Phase::Idle,
        };
    }
}

/// The maximum, in milliseconds, of the unit from which the delay of an election is computed. A
/// replica of rank 0, in a shard of rank 0, waits one to two units before it asks for votes.
const DELAY_MAX_MS: u64 = 500;
const SHARD_STEP_MS: [u64; 2] = [5, 50];
/// The minimum of the time, in milliseconds, within which an election must succeed.
const AUTH_TIMEOUT_MIN_MS: u64 = 2000;
/// The number of times that the longest wait before another election can double.
const COLLISIONS_MAX: u32 = 6;

impl Cluster {
    fn delay_unit(&self) -> u64 {
        (self.settings.node_timeout_ms / 30).clamp(1, DELAY_MAX_MS)
    }

    fn auth_timeout(&self) -> u64 {
        (self.settings.node_timeout_ms * 2).max(AUTH_TIMEOUT_MIN_MS)
    }

    /// The time at which [`Cluster::run_election`] must be called next.
    pub(super) fn election_deadline(&self) -> Option<u64> {
        match &self.election.phase {
            Phase::Idle | Phase::Failed { .. } | Phase::Abandoned { .. } => None,
            Phase::Scheduled { at, .. } => Some(*at),
            Phase::Asking { repeat_at, .. } => *repeat_at,
        }
    }

    /// Begins or continues the election of this node.
    pub(super) fn run_election(&mut self, now: Now, out: &mut Vec<Action>) {
        let manual = self.manual.can_start();
        let Some(primary) = self.may_be_elected(now, manual) else {
            if !matches!(self.election.phase, Phase::Abandoned { .. }) {
                self.election = Election::default();
            }
            return;
        };
        match self.election.phase.clone() {
            Phase::Idle | Phase::Abandoned { .. } => self.schedule(now, primary, out),
            Phase::Failed { until } if now.ms >= until => self.schedule(now, primary, out),
            Phase::Failed { .. } => {}
            Phase::Scheduled { at, earliest } => {
                self.await_turn(now, primary, (at, earliest), out);
            }
            Phase::Asking {
                epoch,
                since,
                repeat_at,
                votes,
            } => self.continue_asking(now, epoch, since, repeat_at, &votes, out),
        }
    }

    /// Drops the election that runs, since a new manual failover begins with an election of its
    /// own.
    pub(super) fn reset_election(&mut self, out: &mut Vec<Action>) {
        let election = std::mem::take(&mut self.election);
        if let Phase::Asking { epoch, .. } | Phase::Abandoned { epoch } = election.phase {
            let text = format!(
                "Failover election in progress for epoch {epoch}, but received a new manual \
                 failover. Resetting the election."
            );
            self.log(log::Level::Warn, text, out);
        }
    }

    /// Begins to ask for votes when the scheduled time of the election has come. The scheduled time
    /// changes with this replica's rank by offset.
    fn await_turn(
        &mut self,
        now: Now,
        primary: NodeIndex,
        (at, earliest): (u64, u64),
        out: &mut Vec<Action>,
    ) {
        let rank = self.rank_by_offset(primary);
        let mut at = at;
        if rank > self.election.rank {
            at += (rank - self.election.rank) * 2 * self.delay_unit();
        } else if rank == 0 && earliest < at && self.siblings_agree(primary) {
            let line = "Myself become the best ranked replica, initiate the election immediately";
            self.log(log::Level::Info, line.into(), out);
            at = earliest;
        }
        self.election.rank = rank;
        self.election.phase = Phase::Scheduled { at, earliest };
        if now.ms >= at || self.manual.can_start() {
            self.begin_asking(now, out);
        }
    }

    /// Whether each other replica of the primary that could be elected has found that the primary
    /// failed.
    fn siblings_agree(&self, primary: NodeIndex) -> bool {
        self.nodes.replicas_of(primary).all(|(index, node)| {
            index == self.me || node.has(flag::PRIMARY_FAILED | flag::FAIL | flag::NO_FAILOVER)
        })
    }

    /// The primary that this node may replace by an election; `None` if it may not be elected.
    fn may_be_elected(&self, now: Now, manual: bool) -> Option<NodeIndex> {
        let primary = self.nodes[self.me].replica_of?;
        let node = &self.nodes[primary];
        let reason = manual || node.has(flag::FAIL) && !self.settings.no_failover;
        (reason && node.slot_count > 0 && (manual || self.has_recent_data(now))).then_some(primary)
    }

    fn has_recent_data(&self, now: Now) -> bool {
        let (settings, replication) = (&self.settings, &self.replication);
        // A failed primary was silent for at least the node timeout, so the node timeout is
        // subtracted from the age of the data.
        let age = now.ms.saturating_sub(replication.heard_ms);
        let age = age.saturating_sub(settings.node_timeout_ms);
        let limit = settings
            .node_timeout_ms
            .saturating_mul(settings.validity_factor);
        settings.validity_factor == 0
            || replication.heard_ms != 0 && age <= limit.saturating_add(settings.repl_ping_ms)
    }

    /// The number of other replicas of the primary with a higher offset; of replicas with equal
    /// offsets, the one with the smaller name comes first.
    fn rank_by_offset(&self, primary: NodeIndex) -> u64 {
        let offset = self.replication.offset;
        let name = self.nodes[self.me].name;
        let better = self.nodes.replicas_of(primary).filter(|(index, node)| {
            let is_better = node.offset > offset || node.offset == offset && node.name < name;
            *index != self.me && !node.has(flag::NO_FAILOVER | flag::FAIL) && is_better
        });
        better.count() as u64
    }

    /// The number of failed primaries with slots whose shard has a smaller name than the shard of
    /// `primary`.
    fn rank_of_primary(&self, primary: NodeIndex) -> u64 {
        let own = &self.nodes[primary].shard;
        let failed = self.nodes.iter().map(|(_, node)| node);
        let failed = failed.filter(|node| node.is_voter() && node.has(flag::FAIL));
        failed.filter(|node| node.shard < *own).count() as u64
    }

    fn schedule(&mut self, now: Now, primary: NodeIndex, out: &mut Vec<Action>) {
        let rank = self.rank_by_offset(primary);
        let shard_rank = self.rank_of_primary(primary);
        let step = (self.settings.node_timeout_ms / 600).clamp(SHARD_STEP_MS[0], SHARD_STEP_MS[1]);
        let unit = self.delay_unit();
        let agreed = rank == 0 && self.siblings_agree(primary);
        let delay = if self.manual.can_start() {
            0
        } else if agreed {
            shard_rank * step
        } else {
            unit + self.random.below(unit) + rank * 2 * unit + shard_rank * step
        };
        self.election.rank = rank;
        self.election.phase = Phase::Scheduled {
            at: now.ms + delay,
            earliest: now.ms + shard_rank * step,
        };
        let offset = self.replication.offset;
        let line =
            "Start of election delayed for {} milliseconds (rank #{}, MASTER rank #{}, offset {}).";
        self.line(line, &[&delay, &rank, &shard_rank, &offset], out);
        // The other replicas of the primary need this replica's offset for their own rank.
        self.announce();
        self.tell_siblings(now, primary, out);
        if delay == 0 {
            self.begin_asking(now, out);
        }
    }

    fn tell_siblings(&mut self, now: Now, primary: NodeIndex, out: &mut Vec<Action>) {
        let siblings = self.nodes.replicas_of(primary).map(|(index, _)| index);
        let siblings: Vec<NodeIndex> = siblings.filter(|index| *index != self.me).collect();
        for index in siblings {
            if self.nodes[index].connected {
                self.send_ping(now, index, super::packet::PingKind::Pong, out);
            }
        }
    }

    fn begin_asking(&mut self, now: Now, out: &mut Vec<Action>) {
        self.current_epoch = self.highest_epoch().saturating_add(1);
        let epoch = self.current_epoch;
        // This node has voted in this epoch, for itself: if it wins, it must not vote for another
        // candidate in this epoch.
        self.last_vote_epoch = epoch;
        self.election.phase = Phase::Asking {
            epoch,
            since: now.ms,
            repeat_at: None,
            votes: BTreeSet::new(),
        };
        let text = format!("Starting a failover election for epoch {epoch}.");
        self.log(log::Level::Info, text, out);
        self.hold(Held::Request { epoch });
    }

    /// Sends the request for votes, now that the epoch of the election is on the disk.
    pub(super) fn request_votes(&mut self, now: Now, epoch: u64, out: &mut Vec<Action>) {
        let repeat = now.ms + self.delay_unit().max(10);
        match &mut self.election.phase {
            Phase::Asking {
                epoch: asking,
                repeat_at,
                ..
            } if *asking == epoch => *repeat_at = Some(repeat),
            _ => return,
        }
        self.send_request(epoch, out);
    }

    fn send_request(&mut self, epoch: u64, out: &mut Vec<Action>) {
        let mut header = self.header();
        header.current_epoch = epoch;
        if self.manual.can_start() {
            header.message_flags[0] |= message_flag::FORCE_ACK;
        }
        let message = Rc::new(Message::Full(Box::new(header), Body::AuthRequest));
        for at in 0..self.nodes.count() {
            let index = self.nodes.indices()[at];
            // Replicas have no vote, so only primaries are asked.
            if index != self.me && self.nodes[index].is_primary() {
                self.send_to(index, &message, out);
            }
        }
    }

    fn continue_asking(
        &mut self,
        now: Now,
        epoch: u64,
        since: u64,
        repeat_at: Option<u64>,
        votes: &BTreeSet<NodeIndex>,
        out: &mut Vec<Action>,
    ) {
        if votes.len() >= self.majority() {
            self.log(
                log::Level::Info,
                "Failover election won: I'm the new master.".into(),
                out,
            );
            self.nodes[self.me].config_epoch = epoch;
            self.take_over(out);
            return;
        }
        let Some(repeat_at) = repeat_at.filter(|at| now.ms >= *at) else {
            return;
        };
        let unit = self.delay_unit().max(10);
        // Voters of Redis that voted for this node do not vote for it in a later epoch for two node
        // timeouts, and each voter waits for its disk: giving up early would lose votes that are on
        // their way.
        let timeout = self.settings.node_timeout_ms;
        let patience = match votes.is_empty() {
            true => (unit * 3).max(timeout / 2),
            false => (unit * 8).max(timeout),
        };
        if now.ms - since > self.auth_timeout() {
            let until = since + 2 * self.auth_timeout();
            self.election.phase = Phase::Failed { until };
            self.log(log::Level::Info, "Failover attempt expired.".into(), out);
        } else if self.is_epoch_taken(epoch) || now.ms - since > patience {
            let shift = self.election.collisions.min(COLLISIONS_MAX);
            let at = now.ms + self.random.below(unit << shift);
            self.election.collisions = self.election.collisions.saturating_add(1);
            self.election.phase = Phase::Scheduled { at, earliest: at };
        } else {
            self.send_request(epoch, out);
            let interval = (repeat_at - since).max(unit);
            if let Phase::Asking { repeat_at, .. } = &mut self.election.phase {
                *repeat_at = Some(now.ms + interval);
            }
        }
    }

    /// Whether a primary has won another election with `epoch`, or a later epoch has begun.
    fn is_epoch_taken(&self, epoch: u64) -> bool {
        let won = |node: &Node| node.is_primary() && node.config_epoch >= epoch;
        self.current_epoch > epoch || self.nodes.iter().any(|(_, node)| won(node))
    }

    pub(super) fn count_vote(&mut self, sender: NodeIndex, header: &Header) {
        let is_voter = self.nodes[sender].is_voter();
        if let Phase::Asking { epoch, votes, .. } = &mut self.election.phase
            && is_voter
            && header.current_epoch == *epoch
        {
            votes.insert(sender);
            self.todo.election = true;
        }
    }

    /// Makes this replica the primary of its primary's slots. The caller must have set this node's
    /// new config epoch.
    pub(super) fn take_over(&mut self, out: &mut Vec<Action>) {
        let Some(primary) = self.nodes[self.me].replica_of else {
            return;
        };
        self.set_as_primary(self.me);
        self.nodes[self.me].flags |= flag::MIGRATE_TO;
        for slot in self.slots.of(primary).iter() {
            self.set_owner(slot, Some(self.me));
        }
        // The other replicas and the old primary become replicas of this node when they receive its
        // claim.
        self.hold(Held::Claim);
        self.election = Election::default();
        self.reset_manual(out);
        self.down_until = 0;
        self.todo.health = true;
        out.push(Action::Promote);
    }

    /// Answers a candidate's request for a vote.
    pub(super) fn vote(
        &mut self,
        now: Now,
        candidate: NodeIndex,
        header: &Header,
        out: &mut Vec<Action>,
    ) {
        if !self.nodes[self.me].is_voter() {
            return;
        }
        let (name, epoch) = (self.nodes[candidate].name, header.current_epoch);
        if self.last_vote == Some((name, epoch)) {
            // The candidate repeats its request: this node's vote was lost on its way, or still
            // waits for the disk.
            let held = |(_, held): &(u64, Held)| {
                *held
                    == Held::Vote {
                        candidate: name,
                        epoch,
                    }
            };
            if !self.waiting.iter().any(held) {
                self.send_vote(name, epoch, out);
            }
            return;
        }
        match self.may_vote(now, candidate, header) {
            Err(reason) => {
                let called = self.nodes[candidate].called();
                let text = format!("Failover auth denied to {called}: {reason}");
                self.log(log::Level::Warn, text, out);
            }
            Ok(primary) => {
                self.nodes[primary].voted = Some((candidate, now.ms));
                self.last_vote_epoch = epoch;
                self.last_vote = Some((name, epoch));
                self.hold(Held::Vote {
                    candidate: name,
                    epoch,
                });
                let called = self.nodes[candidate].called();
                let text = format!("Failover auth granted to {called} for epoch {epoch}");
                self.log(log::Level::Info, text, out);
            }
        }
    }

    /// The primary that the candidate may replace; `Err` is the reason why this node does not vote
    /// for it.
    fn may_vote(
        &self,
        now: Now,
        candidate: NodeIndex,
        header: &Header,
    ) -> Result<NodeIndex, String> {
        let epoch = header.current_epoch;
        if epoch < self.current_epoch {
            let current = self.current_epoch;
            return Err(format!("reqEpoch ({epoch}) < curEpoch({current})"));
        }
        if self.last_vote_epoch >= epoch {
            return Err(format!("already voted for epoch {epoch}"));
        }
        let node = &self.nodes[candidate];
        let primary = node.replica_of.filter(|_| !node.is_primary());
        let primary = primary.ok_or_else(|| "it is a master node".to_string())?;
        let forced = header.message_flags[0] & message_flag::FORCE_ACK != 0;
        if !self.nodes[primary].has(flag::FAIL) && !forced {
            return Err("its master is up".to_string());
        }
        if let Some((other, at)) = self.nodes[primary].voted
            && other != candidate
            && now.ms.saturating_sub(at) < self.settings.node_timeout_ms * 2
        {
            return Err("can't vote about this master before 2 node timeouts".to_string());
        }
        let newer = header.slots.iter().find(|slot| {
            let owner = self.slots.owner(*slot);
            owner.is_some_and(|owner| self.nodes[owner].config_epoch > header.config_epoch)
        });
        match newer {
            Some(slot) => Err(format!("slot {slot} epoch is newer than its claim")),
            None => Ok(primary),
        }
    }

    /// Sends a vote that is on the disk, unless this node has lost its right to vote.
    pub(super) fn send_vote(&mut self, candidate: Name, epoch: u64, out: &mut Vec<Action>) {
        if let Some(candidate) = self.nodes.find(&candidate)
            && self.nodes[self.me].is_voter()
        {
            let mut header = self.header();
            header.current_epoch = epoch;
            let message = Message::Full(Box::new(header), Body::AuthAck);
            self.send_to(candidate, &Rc::new(message), out);
        }
    }
}
