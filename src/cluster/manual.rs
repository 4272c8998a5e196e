//! Manual failover of a cluster: a replica that gets CLUSTER FAILOVER takes over from its primary.
//!
//! ```text
//!    replica                                    primary
//!    FAILOVER ── MFSTART ─────────────────────> holds back writes
//!             <── PING, PAUSED, offset ──────── its stream has ended at the offset
//!    applies the stream up to the offset
//!    AUTH_REQUEST, FORCEACK ──────────────────> all voters
//!    claims the slots ────────────────────────> follows, resumes
//! ```
//!
//! In a manual failover without options, no write is lost. A primary that shuts down sends CLUSTER
//! FAILOVER FORCE REPLICAID name in its replication stream: when the named replica executes it, all
//! earlier writes are applied, so it asks for votes at once.
//!
//! With FORCE the replica asks for votes without the primary; with TAKEOVER it claims the slots
//! under a new epoch without votes. If the failover does not end within
//! `cluster-manual-failover-timeout`, the replica and the primary give up, and the primary takes
//! writes again. The pause of writes itself would end after twice the timeout.

use std::rc::Rc;

use super::event::{Action, Now};
use super::machine::Cluster;
use super::nodes::NodeIndex;
use super::packet::{Body, Message, flag};
use crate::texts::Words;

/// The option with which CLUSTER FAILOVER was called.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ManualKind {
    Default,
    Force,
    Takeover,
    /// The primary, which is about to shut down, has chosen this replica as its successor.
    Chosen,
}

/// The manual failover that runs on this node, as primary or as replica, or none.
#[derive(Clone, Copy, Default, Debug)]
pub(super) struct Manual {
    /// The time at which the manual failover times out; 0 if none runs.
    end: u64,
    /// On the primary: the replica that asked for the manual failover.
    pub(super) replica: Option<NodeIndex>,
    /// On the primary: whether writes are paused since an earlier step, so that the offset in the
    /// heads of packets is final.
    is_paused: bool,
    /// On the replica: the offset at which the paused primary's replication stream ends.
    offset: Option<u64>,
    /// On the replica: whether the election may begin.
    can_start: bool,
}

impl Manual {
    pub(super) fn is_running(&self) -> bool {
        self.end != 0
    }

    pub(super) fn can_start(&self) -> bool {
        self.can_start
    }

    pub(super) fn is_pause_announced(&self) -> bool {
        self.is_paused
    }
}

impl Cluster {
    /// CLUSTER FAILOVER: begins a manual failover on this replica. `Err` is the text of the error
    /// reply, without `ERR`.
    pub fn failover(
        &mut self,
        now: Now,
        kind: ManualKind,
        out: &mut Vec<Action>,
    ) -> Result<(), String> {
        let Some(primary) = self.nodes[self.me].replica_of else {
            return Err("You should send CLUSTER FAILOVER to a replica".into());
        };
        let node = &self.nodes[primary];
        let reachable = !node.has(flag::FAIL) && node.connected;
        if kind == ManualKind::Default && !reachable {
            return Err("Master is down or failed, please use CLUSTER FAILOVER FORCE".into());
        }
        self.reset_manual(out);
        self.reset_election(out);
        self.manual.end = now.ms + self.settings.manual_timeout_ms;
        match kind {
            ManualKind::Takeover => {
                let line = "Taking over the master (user request).";
                self.line(line, &[], out);
                self.new_config_epoch();
                self.take_over(out);
            }
            ManualKind::Force | ManualKind::Chosen => {
                let line = match (kind, self.settings.words) {
                    (ManualKind::Force, _) => "Forced failover user request accepted.",
                    (_, Words::Redis) => "Forced failover master request accepted.",
                    (_, Words::Valkey) => "Forced failover primary request accepted.",
                };
                self.log(log::Level::Warn, line.into(), out);
                self.manual.can_start = true;
                self.todo.election = true;
            }
            ManualKind::Default => {
                let line = "Manual failover user request accepted.";
                self.log(log::Level::Warn, line.into(), out);
                let message = Message::Full(Box::new(self.header()), Body::ManualFailoverStart);
                self.send_to(primary, &Rc::new(message), out);
            }
        }
        self.finish(now, out);
        Ok(())
    }

    /// Pauses the writes of this primary, because its replica `sender` sent MFSTART.
    pub(super) fn manual_start(&mut self, now: Now, sender: NodeIndex, out: &mut Vec<Action>) {
        if self.nodes[sender].replica_of != Some(self.me) || self.manual.replica == Some(sender) {
            return;
        }
        self.reset_manual(out);
        self.manual.end = now.ms + self.settings.manual_timeout_ms;
        self.manual.replica = Some(sender);
        let until_ms = self.manual.end + self.settings.manual_timeout_ms;
        out.push(Action::Pause { until_ms });
        let name = self.nodes[sender].called();
        let text = format!("Manual failover requested by replica {name}.");
        self.log(log::Level::Warn, text, out);
    }

    /// Notes the final offset of the primary, which has sent a packet with the flag PAUSED.
    pub(super) fn note_paused_primary(
        &mut self,
        sender: NodeIndex,
        offset: u64,
        out: &mut Vec<Action>,
    ) {
        let is_mine = self.nodes[self.me].replica_of == Some(sender);
        if !is_mine || self.manual.end == 0 || self.manual.offset.is_some() {
            return;
        }
        self.manual.offset = Some(offset);
        self.todo.election = true;
        let line = "Received replication offset for paused master manual failover: {}";
        self.line(line, &[&offset], out);
    }

    /// Lets the election of a manual failover begin when this replica has applied the primary's
    /// whole stream.
    pub(super) fn run_manual(&mut self, _now: Now, out: &mut Vec<Action>) {
        let manual = &mut self.manual;
        let complete = manual.offset == Some(self.replication.offset);
        if manual.end != 0 && complete && !manual.can_start {
            manual.can_start = true;
            let line = "All master replication stream processed, manual failover can start.";
            self.line(line, &[], out);
        }
    }

    /// Ends a manual failover that has timed out; called at each tick.
    pub(super) fn time_out_manual(&mut self, now: Now, out: &mut Vec<Action>) {
        if self.manual.end == 0 {
            return;
        }
        self.manual.is_paused = self.manual.replica.is_some();
        if now.ms > self.manual.end {
            self.log(log::Level::Warn, "Manual failover timed out.".into(), out);
            if self.manual.can_start {
                self.election.abandon();
            }
            self.reset_manual(out);
        }
    }

    /// Ends the manual failover that runs, with or without success.
    pub(super) fn reset_manual(&mut self, out: &mut Vec<Action>) {
        if self.manual.replica.is_some() {
            out.push(Action::Resume);
        }
        self.manual = Manual::default();
    }
}
