//! A migration job: one atomic move of slots, as its source, its target or a replica of the target
//! knows it.

use super::ranges::Ranges;
use crate::cluster::bitmap::Bitmap;
use crate::cluster::event::Now;
use crate::cluster::name::Name;

/// Whether this node is the source or the target of a migration job.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Side {
    /// This node is the source, which gives the slots away.
    Export,
    /// This node, or its primary, is the target, which takes the slots.
    Import,
}

/// The progress of a migration job, which CLUSTER GETSLOTMIGRATIONS shows.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum State {
    // The states of a migration job on the source:
    Connecting,
    WaitingToSnapshot,
    Snapshotting,
    /// The whole snapshot has been sent to the target; changes since the fork follow.
    Replicating,
    WaitingToPause,
    /// Clients of the source that write to the slots wait, and PAUSED has been sent to the target.
    Paused,
    /// The source has allowed the target to take the slots, and serves no writes on them until it
    /// knows whether the target took them.
    Granted,
    // The states of a migration job on the target:
    WaitingForAck,
    Receiving,
    WaitingForPaused,
    Requested,
    /// This node has taken the slots, and its claim with a new epoch is being written to the disk.
    Claimed,
    // The state of a running migration job on a replica of the target:
    OnPrimary,
    // The final states of a migration job, on all nodes:
    Success,
    Failed,
    Cancelled,
}

impl State {
    /// The name of the state in CLUSTER GETSLOTMIGRATIONS.
    pub fn name(self) -> &'static str {
        match self {
            State::Connecting => "connecting",
            State::WaitingToSnapshot => "waiting-to-snapshot",
            State::Snapshotting => "snapshotting",
            State::Replicating => "replicating",
            State::WaitingToPause => "waiting-to-pause",
            State::Paused => "failover-paused",
            State::Granted | State::Claimed => "failover-granted",
            State::WaitingForAck => "waiting-for-ack",
            State::Receiving => "receiving-snapshot",
            State::WaitingForPaused => "waiting-for-paused",
            State::Requested => "failover-requested",
            State::OnPrimary => "occurring-on-primary",
            State::Success => "success",
            State::Failed => "failed",
            State::Cancelled => "cancelled",
        }
    }

    /// Whether the job has ended in this state.
    pub fn is_final(self) -> bool {
        matches!(self, State::Success | State::Failed | State::Cancelled)
    }

    /// Whether clients that write to the slots wait at the source in this state.
    pub fn holds_writers(self) -> bool {
        matches!(self, State::Paused | State::Granted)
    }
}

/// A migration job. Times without a unit in their name are [`Now::ms`], and 0 means never.
#[derive(Clone, Debug)]
pub struct Job {
    /// The name of the job, which is the same at source and target.
    pub name: Name,
    pub side: Side,
    /// The node that gives the slots away; `source` and `target` are `None` at a replica of the
    /// target.
    pub source: Option<Name>,
    pub target: Option<Name>,
    pub ranges: Ranges,
    pub slots: Bitmap,
    pub state: State,
    /// The reason why the job failed or was cancelled.
    pub message: String,
    /// The Unix time in seconds at which the job began; the other times with `_s` are Unix times,
    /// too.
    pub created_s: i64,
    pub updated_s: i64,
    pub heard_s: i64,
    /// The memory that copy-on-write copied while the snapshot's child ran, in bytes.
    pub cow_bytes: u64,
    /// The time of the last message from the other side; `acked` is the time of the last ACK sent
    /// to it.
    pub(super) heard: u64,
    pub(super) acked: u64,
    /// On the source: whether the target has asked for the pause before this node noticed the end
    /// of the snapshot's child.
    pub(super) pause_asked: bool,
    /// On the source: the time at which the pause began, or the slots were granted. On the target:
    /// the time at which it asked for the slots.
    pub(super) since: u64,
    /// On the source: the time at which the connection of a granted job ended.
    pub(super) lost: u64,
    /// The client id of the job's connection to the other side; `None` without a connection.
    pub link: Option<u64>,
}

impl Job {
    pub(super) fn new(now: Now, name: Name, side: Side, ranges: Ranges, state: State) -> Job {
        let now_s = (now.wall_ms / 1000) as i64;
        Job {
            name,
            side,
            source: None,
            target: None,
            slots: ranges.set(),
            ranges,
            state,
            message: String::new(),
            created_s: now_s,
            updated_s: now_s,
            heard_s: now_s,
            cow_bytes: 0,
            heard: now.ms,
            acked: now.ms,
            pause_asked: false,
            since: 0,
            lost: 0,
            link: None,
        }
    }

    /// Whether the job runs, as it has not ended.
    pub fn is_active(&self) -> bool {
        !self.state.is_final()
    }

    /// The node on the other side of the job, if it is known.
    pub(super) fn other(&self) -> Option<Name> {
        match self.side {
            Side::Export => self.target,
            Side::Import => self.source,
        }
    }

    /// The description of the job in log lines.
    pub(super) fn describe(&self) -> String {
        let (word, what) = match self.side {
            Side::Export => ("export", "target_node_id"),
            Side::Import => ("import", "source_node_id"),
        };
        let other = self.other();
        let other = other.map_or("unknown".into(), |name| name.to_string());
        format!(
            "Slot migration {{name: {}, operation: {word}, {what}: {other}, slots: {}}}",
            self.name, self.ranges
        )
    }
}
