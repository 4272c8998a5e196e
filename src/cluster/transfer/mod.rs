//! The atomic move of slots to another node, as in Valkey 9. [`Transfers`] is, like
//! [`super::Cluster`], a state machine that only decides, and knows neither sockets nor child
//! processes nor the keyspace.
//!
//! ```text
//!   source                                        target                          its replicas
//!   Connecting           ESTABLISH ─────────────> WaitingForAck    ESTABLISH ───> OnPrimary
//!   WaitingToSnapshot    ACK ───────────────────> Receiving
//!   Snapshotting         commands, a child's ───>                  commands ────>
//!                        SNAPSHOT-EOF ──────────>
//!   Replicating          <─────── REQUEST-PAUSE   WaitingForPaused
//!   WaitingToPause       changes since the fork ─>                 commands ────>
//!   Paused               PAUSED ────────────────>
//!                        <──── REQUEST-FAILOVER   Requested
//!   Granted              FAILOVER-GRANTED ──────> Claimed: a new epoch, on the disk
//!   Success              <── the claim, by the bus   Success       FINISH ──────>
//! ```
//!
//! From the state Paused on, clients that write to the moving slots wait; writers of other slots
//! are not delayed.
//!
//! **After the grant** (FAILOVER-GRANTED) the target may take the slots at any moment, and write to
//! them. So the source takes no write on the slots before it knows whether the target has taken
//! them. In Valkey, the source takes writes again after a timeout, and loses these writes when the
//! target's claim arrives late. In aeris a granted job ends at one of the following events, and
//! never by a timeout:
//!
//! - the claim of the target arrives, and the job has succeeded;
//! - the job's connection is closed, and the target answers a later ping without a claim: the
//!   target has given the job up, as it would claim the slots before it closes the connection;
//! - a majority finds that the target has failed, or an operator cancels the job.
//!
//! A target that was stopped between its request and the grant could wake up after a majority had
//! declared it failed. So a target claims only within half of the node timeout after its request,
//! before a majority can have declared it failed.
//!
//! **For the owner**, the code that holds the state machine. The owner executes the actions of
//! transfers in their order, when no command runs. A connection is named by its client id.
//! `Snapshot` need not be executed at once: the child of a snapshot is forked when no other child
//! process runs. From the fork on, changes of the job's slots are collected, to be sent after the
//! snapshot.
//!
//! **Invariant:** a job that has ended never changes; running jobs have different connections.
//! **Limits:** jobs are not continued after a restart, and a target that restarts removes the keys
//! that it had received.

mod export;
mod import;
mod job;
pub mod ranges;
pub mod request;
#[cfg(test)]
mod tests;
mod view;

use std::collections::VecDeque;

pub use self::job::{Job, Side, State};
use self::request::{FinalState, Finish, Word};
use super::Cluster;
use super::bitmap::Bitmap;
use super::event::Now;
use super::name::Name;

/// What the server must do for a migration job; most actions have the name of the job.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Action {
    /// Connect to the target and send ESTABLISH; the result is passed to `connected` or `refused`.
    Connect(Name),
    /// Close the connection of the job, without an event, and end the child process that writes to
    /// the connection.
    Disconnect(Name),
    /// Fork the child that sends the snapshot as soon as possible; then call `snapshot_begun` and
    /// `snapshot_ended`.
    Snapshot(Name),
    /// Send a message to the other side, behind all changes that were collected for the job.
    Send(Name, Word),
    /// Apply [`Transfers::held`] again, as the slots whose writers wait have changed.
    HoldWriters,
    /// Apply [`Transfers::hidden`] again, as the slots whose keys are hidden have changed.
    Hide,
    /// Make this node the owner of the job's slots, with [`Cluster::claim_slots`].
    Claim(Name),
    /// Remove the keys of the job's slots, which belong to another node.
    Drop(Name),
    /// Propagate a command to the replicas and to the AOF.
    Propagate(Vec<Vec<u8>>),
    Log(log::Level, String),
}

/// The settings that limit migration jobs.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// `repl-timeout` in milliseconds: a job whose other side is silent for longer fails.
    pub silence_ms: u64,
    /// Twice `cluster-manual-failover-timeout`: the longest time that writers wait for the target's
    /// request, and the longest time after the grant before they are refused.
    pub pause_ms: u64,
    /// Half of `cluster-node-timeout`: a target claims the slots only within this time after its
    /// request.
    pub grant_ms: u64,
    /// The setting `cluster-slot-migration-log-max-len`.
    pub log_max: usize,
    /// `slot-migration-max-failover-repl-bytes`: writers are paused only when at most this number
    /// of bytes is unsent. With `None` writers are paused at any number of unsent bytes.
    pub unsent_max: Option<u64>,
    /// Switches for tests: with `never_pause` the source never pauses writers, with `never_claim`
    /// the target claims no slots.
    pub never_pause: bool,
    pub never_claim: bool,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            silence_ms: 60_000,
            pause_ms: 10_000,
            grant_ms: 7500,
            log_max: 1000,
            unsent_max: Some(0),
            never_pause: false,
            never_claim: false,
        }
    }
}

/// The migration jobs of this node, both running and ended, the youngest first.
#[derive(Default)]
pub struct Transfers {
    jobs: VecDeque<Job>,
    pub limits: Limits,
    out: Vec<Action>,
}

/// The interval at which ACK messages are sent to the other side of a job, in milliseconds.
const ACK_MS: u64 = 1000;

const NOT_LINKED: &str = "should only be used by slot migration clients";

impl Transfers {
    /// Takes the actions that were added since the last call.
    pub fn take_actions(&mut self) -> Vec<Action> {
        std::mem::take(&mut self.out)
    }

    /// Whether there are actions that the server has not taken.
    pub fn has_actions(&self) -> bool {
        !self.out.is_empty()
    }

    /// All migration jobs, running and ended, the youngest first.
    pub fn jobs(&self) -> impl ExactSizeIterator<Item = &Job> {
        self.jobs.iter()
    }

    /// The migration job whose name is `name`.
    pub fn job(&self, name: &Name) -> Option<&Job> {
        self.jobs.iter().find(|job| job.name == *name)
    }

    /// The running jobs in which this node is the source (`Export`) or the target (`Import`).
    pub fn active(&self, side: Side) -> impl Iterator<Item = &Job> {
        let is_it = move |job: &&Job| job.side == side && job.is_active();
        self.jobs.iter().filter(is_it)
    }

    /// Whether any migration job is running.
    pub fn is_busy(&self) -> bool {
        self.jobs.iter().any(Job::is_active)
    }

    /// The slots whose writers wait, and the slots whose writers are refused with TRYAGAIN, because
    /// the source has not learned for too long whether the target has taken the slots.
    pub fn held(&self, now: Now) -> (Bitmap, Bitmap) {
        let (mut waiting, mut refused) = (Bitmap::default(), Bitmap::default());
        for job in self.active(Side::Export) {
            if job.state.holds_writers() {
                let set = match self.is_overdue(job, now) {
                    true => &mut refused,
                    false => &mut waiting,
                };
                job.ranges.slots().for_each(|slot| set.insert(slot));
            }
        }
        (waiting, refused)
    }

    fn is_overdue(&self, job: &Job, now: Now) -> bool {
        job.state == State::Granted && now.ms - job.since > self.limits.pause_ms
    }

    /// The slots whose keys arrive before this shard owns the slots: SCAN, KEYS, RANDOMKEY and
    /// DBSIZE leave these keys out.
    pub fn hidden(&self) -> Bitmap {
        let jobs = self.active(Side::Import);
        // A slot that this node has claimed belongs to it, so the slot's keys are shown.
        let jobs = jobs.filter(|job| job.state != State::Claimed);
        jobs.flat_map(|job| job.ranges.slots()).collect()
    }

    /// The running job whose connection is the client with this id.
    pub fn of_link(&self, client: u64) -> Option<&Job> {
        let is_it = |job: &&Job| job.link == Some(client) && job.is_active();
        self.jobs.iter().find(is_it)
    }

    fn at_link(&self, client: u64) -> Option<usize> {
        let is_it = |job: &Job| job.link == Some(client) && job.is_active();
        self.jobs.iter().position(is_it)
    }

    fn at(&self, name: &Name) -> Option<usize> {
        let is_it = |job: &Job| job.name == *name && job.is_active();
        self.jobs.iter().position(is_it)
    }

    fn log(&mut self, level: log::Level, text: String) {
        self.out.push(Action::Log(level, text));
    }

    fn set_state(&mut self, now: Now, at: usize, state: State) {
        let job = &mut self.jobs[at];
        let text = format!(
            "{} state transition: {} -> {}",
            job.describe(),
            job.state.name(),
            state.name()
        );
        let held = job.state.holds_writers() != state.holds_writers();
        job.state = state;
        job.updated_s = (now.wall_ms / 1000) as i64;
        self.log(log::Level::Info, text);
        if held {
            self.out.push(Action::HoldWriters);
        }
    }

    /// Ends a migration job in the final state `state`.
    fn end(&mut self, now: Now, at: usize, state: State, message: &str) {
        let before = self.jobs[at].state;
        self.jobs[at].message = message.into();
        self.set_state(now, at, state);
        let job = &self.jobs[at];
        let (name, side) = (job.name, job.side);
        let text = format!(
            "{} finished. State: {}, Message: {message}",
            job.describe(),
            state.name()
        );
        self.log(log::Level::Info, text);
        self.out.push(Action::Disconnect(name));
        if side == Side::Import {
            if state != State::Success {
                self.out.push(Action::Drop(name));
            }
            let ended = match state {
                State::Success => FinalState::Success,
                State::Cancelled => FinalState::Cancelled,
                _ => FinalState::Failed,
            };
            let finish = Finish {
                name,
                state: ended,
                message: message.into(),
            };
            self.out.push(Action::Propagate(finish.command()));
            if before != State::Claimed {
                self.out.push(Action::Hide);
            }
        }
    }

    fn fail(&mut self, now: Now, at: usize, message: &str) {
        self.end(now, at, State::Failed, message);
    }

    /// Executes a message that the other side sent on the connection of a job. For a client that is
    /// not the connection of a job, `Err` is the text of the error reply, without `ERR`.
    pub fn hear(&mut self, now: Now, client: u64, word: Word) -> Result<(), String> {
        let Some(at) = self.at_link(client) else {
            return Err(format!("CLUSTER SYNCSLOTS {} {NOT_LINKED}", word.text()));
        };
        self.note_heard(now, at);
        let follows = match self.jobs[at].side {
            Side::Export => self.hear_target(now, at, word),
            Side::Import => self.hear_source(now, at, word),
        };
        if !follows {
            let message = format!("Unexpected {} from the other side", word.text());
            self.fail(now, at, &message);
        }
        Ok(())
    }

    /// Notes that bytes have arrived on the connection of a job.
    pub fn heard_bytes(&mut self, now: Now, client: u64) {
        if let Some(at) = self.at_link(client) {
            self.jobs[at].heard = now.ms;
        }
    }

    fn note_heard(&mut self, now: Now, at: usize) {
        let job = &mut self.jobs[at];
        job.heard = now.ms;
        job.heard_s = (now.wall_ms / 1000) as i64;
    }

    /// Notes that the connection of a job has ended.
    pub fn link_lost(&mut self, now: Now, client: u64) {
        let Some(at) = self.at_link(client) else {
            return;
        };
        self.jobs[at].link = None;
        match (self.jobs[at].side, self.jobs[at].state) {
            (_, State::Granted) => self.jobs[at].lost = now.ms,
            // The target has claimed the slots: the end of its connection is no failure.
            (_, State::Claimed) => {}
            (Side::Export, _) => self.fail(now, at, "Connection lost to target"),
            (Side::Import, _) => self.fail(now, at, "Connection lost to source"),
        }
    }

    /// Ends a job as failed, because its peer sent a command that can't be executed.
    pub fn link_failed(&mut self, now: Now, client: u64, message: &str) {
        if let Some(at) = self.at_link(client) {
            self.fail(now, at, message);
        }
    }

    /// Ends as failed the jobs that move `slot` (with `None`: any slot), because a command has
    /// removed all its keys.
    pub fn flushed(&mut self, now: Now, slot: Option<u16>) {
        for at in 0..self.jobs.len() {
            let job = &self.jobs[at];
            let touches = slot.is_none_or(|slot| job.slots.contains(slot));
            // A replica's job is ended by its primary. A granted job can't be ended by a flush any
            // more.
            let stays = matches!(
                job.state,
                State::Granted | State::Claimed | State::OnPrimary | State::Connecting
            );
            if job.is_active() && touches && !stays {
                self.fail(now, at, "Data was flushed");
            }
        }
    }

    /// Checks all running jobs after owners of slots, or roles of nodes, have changed.
    pub fn topology_changed(&mut self, now: Now, cluster: &Cluster) {
        for at in 0..self.jobs.len() {
            let job = &self.jobs[at];
            if !job.is_active() {
                continue;
            }
            match job.side {
                Side::Export => self.check_export(now, at, cluster),
                Side::Import => self.check_import(now, at, cluster),
            }
        }
    }

    /// Does the periodic work of all running jobs: timeouts, and steps that wait. `unsent` returns
    /// the number of bytes that wait to be sent to the target of a job.
    pub fn tick(&mut self, now: Now, cluster: &Cluster, unsent: impl Fn(&Job) -> u64) {
        for at in 0..self.jobs.len() {
            if !self.jobs[at].is_active() {
                continue;
            }
            let bytes = unsent(&self.jobs[at]);
            match self.jobs[at].side {
                Side::Export => self.tick_export(now, at, cluster, bytes),
                Side::Import => self.tick_import(now, at, cluster),
            }
            if self.jobs[at].is_active() {
                self.tick_link(now, at);
            }
        }
        self.forget_old();
    }

    /// Sends an ACK to the other side of a job if it is due, and fails the job if the other side is
    /// silent for too long.
    fn tick_link(&mut self, now: Now, at: usize) {
        let job = &mut self.jobs[at];
        // While a snapshot is sent, the child writes to the socket, and sends the ACK messages
        // itself.
        let talks = !matches!(
            job.state,
            State::Snapshotting | State::WaitingForAck | State::Connecting
        );
        if job.link.is_some() && talks && now.ms - job.acked >= ACK_MS {
            job.acked = now.ms;
            let name = job.name;
            self.out.push(Action::Send(name, Word::Ack));
        }
        let job = &self.jobs[at];
        let decided = matches!(
            job.state,
            State::Granted | State::Claimed | State::OnPrimary
        );
        if !decided && now.ms - job.heard > self.limits.silence_ms {
            self.fail(now, at, "Timed out after too long with no interaction");
        }
    }

    fn forget_old(&mut self) {
        let mut ended = self.jobs.iter().filter(|job| !job.is_active()).count();
        while ended > self.limits.log_max {
            let Some(at) = self.jobs.iter().rposition(|job| !job.is_active()) else {
                return;
            };
            self.jobs.remove(at);
            ended -= 1;
        }
    }
}
