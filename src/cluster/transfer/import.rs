//! The atomic move of slots (CLUSTER MIGRATESLOTS) on the target's side, and at the target's
//! replicas.

use super::request::{Establish, FinalState, Finish, Word};
use super::{Action, Job, Side, State, Transfers};
use crate::cluster::Cluster;
use crate::cluster::event::Now;

impl Transfers {
    /// Begins a migration job for which the source asks with ESTABLISH; `client` is the client id
    /// of the source's connection. `Err` is the text of the error reply, without `ERR`.
    pub fn establish(
        &mut self,
        now: Now,
        cluster: &Cluster,
        request: &Establish,
        client: u64,
    ) -> Result<(), String> {
        self.check_establish(cluster, request, client)?;
        let mut job = self.begin_import(now, request, State::WaitingForAck);
        job.source = Some(request.source);
        job.target = Some(cluster.myself().name);
        job.link = Some(client);
        self.add_import(job);
        self.out.push(Action::Propagate(request.command()));
        Ok(())
    }

    /// Notes a migration job of this node's primary, from ESTABLISH in the primary's stream, in the
    /// AOF or in a snapshot.
    pub fn follow(&mut self, now: Now, request: &Establish) {
        if self.at(&request.name).is_none() {
            let job = self.begin_import(now, request, State::OnPrimary);
            self.add_import(job);
        }
    }

    fn begin_import(&self, now: Now, request: &Establish, state: State) -> Job {
        let ranges = request.ranges.clone();
        Job::new(now, request.name, Side::Import, ranges, state)
    }

    fn add_import(&mut self, job: Job) {
        let text = format!("New slot import job created: {}.", job.describe());
        self.log(log::Level::Info, text);
        self.jobs.push_front(job);
        self.out.push(Action::Hide);
    }

    fn check_establish(
        &self,
        cluster: &Cluster,
        request: &Establish,
        client: u64,
    ) -> Result<(), String> {
        let me = cluster.myself();
        if !me.is_primary() {
            return Err("Target node is not a primary".into());
        }
        if request.source == me.name {
            return Err("Source node is target node itself".into());
        }
        if !cluster.knows(&request.source) {
            return Err("Target node does not know the source node".into());
        }
        let agrees = |slot| cluster.owner_name(slot) == Some(request.source);
        if !request.ranges.slots().all(agrees) {
            return Err("Target node does not agree about current slot ownership".into());
        }
        if cluster.moves_by_hand() {
            return Err("A slot on the target node is being manually imported or migrated".into());
        }
        let shares = |job: &Job| request.ranges.shared_slot(&job.ranges).is_some();
        if self.active(Side::Import).any(shares) {
            return Err(
                "Slot is already being imported on the target by a different migration".into(),
            );
        }
        if self.job(&request.name).is_some() || self.at_link(client).is_some() {
            return Err("A migration of this name or on this connection exists already".into());
        }
        Ok(())
    }

    /// Ends a migration job of the primary, at FINISH in the primary's stream or in the AOF. `Err`
    /// is the text of the error reply, without `ERR`.
    pub fn finish(&mut self, now: Now, finish: &Finish) -> Result<(), String> {
        let Some(at) = self.at(&finish.name) else {
            return Err("No such slot migration job".into());
        };
        if self.jobs[at].state != State::OnPrimary {
            return Err("The slot migration job is not one of the primary".into());
        }
        let state = match finish.state {
            FinalState::Success => State::Success,
            FinalState::Failed => State::Failed,
            FinalState::Cancelled => State::Cancelled,
        };
        self.jobs[at].message.clone_from(&finish.message);
        self.set_state(now, at, state);
        self.out.push(Action::Hide);
        Ok(())
    }

    /// Executes a message of the source. Returns false if the job's state does not allow the
    /// message.
    pub(super) fn hear_source(&mut self, now: Now, at: usize, word: Word) -> bool {
        let name = self.jobs[at].name;
        match (word, self.jobs[at].state) {
            (Word::Ack, State::WaitingForAck) => self.set_state(now, at, State::Receiving),
            (Word::Ack, _) => {}
            (Word::SnapshotEof, State::Receiving) => {
                self.set_state(now, at, State::WaitingForPaused);
                self.out.push(Action::Send(name, Word::RequestPause));
            }
            (Word::Paused, State::WaitingForPaused) => {
                self.set_state(now, at, State::Requested);
                self.jobs[at].since = now.ms;
                self.out.push(Action::Send(name, Word::RequestFailover));
            }
            (Word::FailoverGranted, State::Requested) => self.granted(now, at),
            _ => return false,
        }
        true
    }

    fn granted(&mut self, now: Now, at: usize) {
        if self.limits.never_claim {
            return;
        }
        // Later than half of the node timeout after this node's request, a majority may have
        // declared this node failed, and the source may serve the slots again.
        if now.ms - self.jobs[at].since >= self.limits.grant_ms {
            return self.fail(now, at, "The grant came too late");
        }
        let name = self.jobs[at].name;
        self.set_state(now, at, State::Claimed);
        self.out.push(Action::Claim(name));
        self.out.push(Action::Hide);
    }

    /// Checks an import job after owners of slots, or the role of this node, have changed.
    pub(super) fn check_import(&mut self, now: Now, at: usize, cluster: &Cluster) {
        let job = &self.jobs[at];
        let source = job.source;
        let is_primary = cluster.myself().is_primary();
        let agrees = || {
            job.ranges
                .slots()
                .all(|slot| cluster.owner_name(slot) == source)
        };
        match job.state {
            State::OnPrimary | State::Claimed => {}
            _ if !is_primary => {
                // This node's new primary removes the imported keys, and ends the job for all its
                // replicas.
                self.jobs[at].message = "I was demoted to a replica".into();
                let name = self.jobs[at].name;
                self.set_state(now, at, State::Failed);
                self.out.push(Action::Disconnect(name));
                self.out.push(Action::Hide);
            }
            _ if !agrees() => self.fail(now, at, "Slots are no longer owned by source node"),
            _ => {}
        }
    }

    pub(super) fn tick_import(&mut self, now: Now, at: usize, cluster: &Cluster) {
        match self.jobs[at].state {
            // The connection to the source stays open until the claim of the slots can reach the
            // source.
            State::Claimed if cluster.is_claim_announced() => {
                let text = format!(
                    "{} completed successfully. This node is now the owner of the slots",
                    self.jobs[at].describe()
                );
                self.log(log::Level::Info, text);
                self.end(now, at, State::Success, "");
            }
            // This node was promoted during its primary's import, or was started as a primary with
            // the AOF or snapshot of an import.
            State::OnPrimary if cluster.myself().is_primary() => {
                self.fail(now, at, "The target of the slots is another node now");
            }
            _ => {}
        }
    }

    /// Forgets the jobs of the primary, because another data set, which has its own jobs, replaces
    /// this node's data set.
    pub fn forget_primary_imports(&mut self) {
        let before = self.jobs.len();
        self.jobs.retain(|job| job.state != State::OnPrimary);
        if self.jobs.len() != before {
            self.out.push(Action::Hide);
        }
    }

    /// The import jobs that a replica must know when it gets a snapshot of this node's data set.
    pub fn imports(&self) -> impl Iterator<Item = &Job> {
        let jobs = self.active(Side::Import);
        jobs.filter(|job| job.state != State::Claimed)
    }
}
