//! Manual failover: CLUSTER FAILOVER on a replica.
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
//! No write is lost. A primary that shuts down sends CLUSTER FAILOVER FORCE REPLICAID name in its
//! stream: the named replica has then applied all earlier writes, and asks for votes at once.
//!
//! FORCE asks for votes without the primary; TAKEOVER claims the slots under a new epoch without
//! votes. If the failover does not end within `cluster-manual-failover-timeout`, each side gives
//! up, and the primary takes writes again. The pause itself would end after twice the timeout.

use std::rc::Rc;

use super::event::{Action, Now};
use super::machine::Cluster;
use super::nodes::NodeIndex;
use super::packet::{Body, Message, flag};
use crate::texts::Words;

/// How CLUSTER FAILOVER was called.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ManualKind {
    Default,
    Force,
    Takeover,
    /// The primary, which is about to stop, has chosen this replica.
    Chosen,
}

/// The manual failover that runs on this node, as primary or as replica, or none.
#[derive(Clone, Copy, Default, Debug)]
pub(super) struct Manual {
    /// The time at which the failover ends without success; 0: none runs.
    end: u64,
    /// On the primary: the replica that takes over.
    pub(super) replica: Option<NodeIndex>,
    /// On the primary: writes were held back at an earlier step, so the offset in the head is
    /// final.
    is_paused: bool,
    /// On the replica: the end of the primary's stream.
    offset: Option<u64>,
    /// On the replica: the election may begin.
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
    /// Begins a manual failover on this replica: CLUSTER FAILOVER. An error is the text of the
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

    /// Holds back the writes of this primary, because its replica sent MFSTART.
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

    /// Notes the final offset of the primary, which has sent a head with PAUSED.
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

    /// Lets the election begin when this replica has applied the primary's whole stream.
    pub(super) fn run_manual(&mut self, _now: Now, out: &mut Vec<Action>) {
        let manual = &mut self.manual;
        let complete = manual.offset == Some(self.replication.offset);
        if manual.end != 0 && complete && !manual.can_start {
            manual.can_start = true;
            let line = "All master replication stream processed, manual failover can start.";
            self.line(line, &[], out);
        }
    }

    /// Ends a manual failover whose time is over; called at each tick.
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

    /// Ends a manual failover.
    pub(super) fn reset_manual(&mut self, out: &mut Vec<Action>) {
        if self.manual.replica.is_some() {
            out.push(Action::Resume);
        }
        self.manual = Manual::default();
    }
}
