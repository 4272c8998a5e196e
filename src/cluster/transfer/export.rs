//! The atomic move of slots (CLUSTER MIGRATESLOTS) on the source's side.

use super::ranges::Ranges;
use super::request::{Wish, Word};
use super::{Action, Job, Side, State, Transfers};
use crate::cluster::Cluster;
use crate::cluster::event::Now;
use crate::cluster::name::Name;
use crate::util::random::Random;

impl Transfers {
    /// Begins a job for each request of CLUSTER MIGRATESLOTS, which the caller has checked.
    pub fn export(&mut self, now: Now, cluster: &Cluster, wishes: Vec<Wish>, random: &mut Random) {
        for (ranges, target) in wishes {
            let name = Name::random(random);
            let mut job = Job::new(now, name, Side::Export, ranges, State::Connecting);
            job.source = Some(cluster.myself().name);
            job.target = Some(target);
            let text = format!("{} was requested", job.describe());
            self.log(log::Level::Info, text);
            self.jobs.push_front(job);
            self.out.push(Action::Connect(name));
        }
    }

    /// Notes that the target has accepted the migration job; `client` is the id of the connection
    /// to the target.
    pub fn connected(&mut self, now: Now, name: &Name, client: u64) {
        let Some(at) = self.at_state(name, State::Connecting) else {
            return;
        };
        self.note_heard(now, at);
        self.jobs[at].link = Some(client);
        self.jobs[at].acked = now.ms;
        self.set_state(now, at, State::WaitingToSnapshot);
        self.out.push(Action::Send(*name, Word::Ack));
        self.out.push(Action::Snapshot(*name));
    }

    fn at_state(&self, name: &Name, state: State) -> Option<usize> {
        let at = self.at(name)?;
        (self.jobs[at].state == state).then_some(at)
    }

    /// Ends a migration job, because the target could not be reached or has refused the job.
    pub fn refused(&mut self, now: Now, name: &Name, message: &str) {
        if let Some(at) = self.at(name) {
            self.fail(now, at, message);
        }
    }

    /// The oldest migration job that waits for the fork of its snapshot.
    pub fn waits_for_snapshot(&self) -> Option<&Job> {
        let waits = |job: &&Job| job.state == State::WaitingToSnapshot;
        self.jobs.iter().rev().find(waits)
    }

    /// Notes that the child process that sends the job's snapshot was forked.
    pub fn snapshot_begun(&mut self, now: Now, name: &Name) {
        if let Some(at) = self.at_state(name, State::WaitingToSnapshot) {
            self.set_state(now, at, State::Snapshotting);
        }
    }

    /// Notes that the child process that sends the job's snapshot has ended.
    pub fn snapshot_ended(&mut self, now: Now, name: &Name, succeeded: bool, cow_bytes: u64) {
        let Some(at) = self.at_state(name, State::Snapshotting) else {
            return;
        };
        self.jobs[at].cow_bytes = cow_bytes;
        if !succeeded {
            return self.fail(now, at, "The child that sends the slots has failed");
        }
        self.set_state(now, at, State::Replicating);
        if self.jobs[at].pause_asked {
            self.set_state(now, at, State::WaitingToPause);
        }
    }

    /// Cancels all exports: CLUSTER CANCELSLOTMIGRATIONS. Returns false if no export is active.
    pub fn cancel(&mut self, now: Now) -> bool {
        let mut any = false;
        for at in 0..self.jobs.len() {
            if self.jobs[at].side == Side::Export && self.jobs[at].is_active() {
                self.end(now, at, State::Cancelled, "");
                any = true;
            }
        }
        any
    }

    /// Executes a message of the target. Returns false if the job's state does not allow the
    /// message.
    pub(super) fn hear_target(&mut self, now: Now, at: usize, word: Word) -> bool {
        match (word, self.jobs[at].state) {
            (Word::Ack, _) => {}
            (Word::RequestPause, State::Snapshotting) => self.jobs[at].pause_asked = true,
            (Word::RequestPause, State::Replicating) => {
                self.set_state(now, at, State::WaitingToPause);
            }
            (Word::RequestFailover, State::Paused) => {
                let name = self.jobs[at].name;
                self.set_state(now, at, State::Granted);
                self.jobs[at].since = now.ms;
                self.out.push(Action::Send(name, Word::FailoverGranted));
            }
            _ => return false,
        }
        true
    }

    /// Checks an export job after owners of slots have changed.
    pub(super) fn check_export(&mut self, now: Now, at: usize, cluster: &Cluster) {
        let job = &self.jobs[at];
        let (me, target) = (cluster.myself().name, job.target);
        let owners = || job.ranges.slots().map(|slot| cluster.owner_name(slot));
        let at_target = owners().all(|owner| owner == target);
        let at_home = cluster.myself().is_primary() && owners().all(|owner| owner == Some(me));
        if at_home {
            return;
        }
        let moves = owners().all(|owner| owner == target || owner == Some(me));
        match job.state {
            State::Granted if at_target => {
                let text = format!("{} slots are now owned by target node.", job.describe());
                self.log(log::Level::Info, text);
                self.end(now, at, State::Success, "");
            }
            // The target has claimed a part of the slots: its other claims are in the same packet
            // or in the next one.
            State::Granted if moves => {}
            _ => self.fail(now, at, "Slots are no longer owned by myself"),
        }
    }

    pub(super) fn tick_export(&mut self, now: Now, at: usize, cluster: &Cluster, unsent: u64) {
        let job = &self.jobs[at];
        match job.state {
            State::WaitingToPause => {
                let few = self.limits.unsent_max.is_none_or(|max| unsent <= max);
                if few && !self.limits.never_pause {
                    let text = format!(
                        "Pausing writes to the slots (remaining_repl_size is {unsent}) to allow {} to finalize failover.",
                        job.describe()
                    );
                    let name = job.name;
                    self.log(log::Level::Info, text);
                    self.set_state(now, at, State::Paused);
                    self.jobs[at].since = now.ms;
                    self.out.push(Action::Send(name, Word::Paused));
                }
            }
            State::Paused if now.ms - job.since > self.limits.pause_ms => {
                self.fail(now, at, "Unpaused before migration completed");
            }
            State::Granted => self.tick_granted(now, at, cluster),
            _ => {}
        }
    }

    fn tick_granted(&mut self, now: Now, at: usize, cluster: &Cluster) {
        let job = &self.jobs[at];
        let Some(target) = job.target else {
            return;
        };
        if cluster.is_lost(&target) {
            self.fail(now, at, "The target has failed before it took the slots");
        } else if job.lost > 0 && cluster.has_answered_since(&target, job.lost) {
            self.fail(now, at, "The target has given up before it took the slots");
        } else if self.is_overdue(job, now) {
            // The target has not used the grant for too long, so writers of the slots are refused
            // from now on.
            self.out.push(Action::HoldWriters);
        }
    }

    /// Checks that CLUSTER MIGRATESLOTS may move the slots `ranges`. `Err` is the text of the error
    /// reply, without `ERR`.
    pub fn check_ranges(&self, cluster: &Cluster, ranges: &Ranges) -> Result<(), String> {
        let owner = |slot: u16| cluster.owner_name(slot);
        if let Some(slot) = ranges.slots().find(|slot| owner(*slot).is_none()) {
            return Err(format!("Slot {slot} has no node served"));
        }
        let mut owners = ranges.slots().map(owner);
        let first = owners.next().flatten();
        if !owners.all(|owner| owner == first) {
            return Err("Requested slots span multiple shards".into());
        }
        if first != Some(cluster.myself().name) {
            return Err("Slots are not served by this node.".into());
        }
        Ok(())
    }

    /// Checks that no job already moves a slot of `ranges` away; `Err` is the text of the error
    /// reply.
    pub fn check_idle(&self, ranges: &Ranges) -> Result<(), String> {
        let shared = |job: &Job| ranges.shared_slot(&job.ranges);
        match self.active(Side::Export).find_map(shared) {
            Some(slot) => Err(format!("I am already migrating slot {slot}.")),
            None => Ok(()),
        }
    }
}
