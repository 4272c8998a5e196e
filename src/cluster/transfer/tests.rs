//! Tests of the source and the target of an atomic move of slots: each state in which a migration
//! job can end, and why.

use super::request::{Establish, Sync};
use super::*;
use crate::cluster::event::Event;
use crate::cluster::event::{Action as BusAction, Address, Settings};
use crate::cluster::nodes::{Node, NodeIndex};
use crate::cluster::packet::flag;
use crate::util::random::Random;
use ranges::Ranges;

const LINK: u64 = 7;

/// A node of a cluster of two primaries, with its migration jobs.
struct Side2 {
    cluster: Cluster,
    transfers: Transfers,
    other: NodeIndex,
}

fn name(byte: u8) -> Name {
    Name::parse(&[byte; 40]).expect("a name")
}

fn at(ms: u64) -> Now {
    Now { ms, wall_ms: ms }
}

fn ranges() -> Ranges {
    let mut ranges = Ranges::default();
    ranges.add(1, 3).expect("a range");
    ranges
}

/// Makes the source node, which has slots 0 to 9, or the target node, which has slots 10 to 19.
fn side(is_source: bool) -> Side2 {
    let settings = Settings::default();
    let (me, other) = match is_source {
        true => (name(b'a'), name(b'b')),
        false => (name(b'b'), name(b'a')),
    };
    let mut cluster = Cluster::new(at(1), settings, Random::from_seed(1));
    cluster.nodes.rename(cluster.me, me);
    let node = Node::new(other, other, flag::PRIMARY, Address::default(), 1);
    let other = cluster.nodes.add(node).expect("the second node");
    let (first, second) = match is_source {
        true => (cluster.me, other),
        false => (other, cluster.me),
    };
    for slot in 0..20 {
        cluster.set_owner(slot, Some(if slot < 10 { first } else { second }));
    }
    Side2 {
        cluster,
        transfers: Transfers::default(),
        other,
    }
}

impl Side2 {
    fn actions(&mut self) -> Vec<Action> {
        let mut actions = self.transfers.take_actions();
        actions.retain(|action| !matches!(action, Action::Log(..)));
        actions
    }

    fn state(&self) -> State {
        self.transfers.jobs().next().expect("a job").state
    }

    fn message(&self) -> &str {
        &self.transfers.jobs().next().expect("a job").message
    }

    fn job(&self) -> Name {
        self.transfers.jobs().next().expect("a job").name
    }

    fn tick(&mut self, ms: u64) {
        self.transfers.tick(at(ms), &self.cluster, |_| 0);
    }

    fn hear(&mut self, ms: u64, word: Word) {
        self.transfers.hear(at(ms), LINK, word).expect("a link");
    }

    fn holds(&self, ms: u64, slot: u16) -> (bool, bool) {
        let (waiting, refused) = self.transfers.held(at(ms));
        (waiting.contains(slot), refused.contains(slot))
    }
}

/// Makes a source whose migration job is in the state `state` at time 100.
fn source(state: State) -> Side2 {
    let mut s = side(true);
    let wishes = vec![(ranges(), name(b'b'))];
    s.transfers
        .export(at(100), &s.cluster, wishes, &mut Random::from_seed(2));
    let job = s.job();
    assert_eq!(s.actions(), [Action::Connect(job)]);
    if state == State::Connecting {
        return s;
    }
    s.transfers.connected(at(100), &job, LINK);
    assert_eq!(
        s.actions(),
        [Action::Send(job, Word::Ack), Action::Snapshot(job)]
    );
    s.transfers.snapshot_begun(at(100), &job);
    if state == State::Snapshotting {
        return s;
    }
    s.transfers.snapshot_ended(at(100), &job, true, 5);
    s.hear(100, Word::RequestPause);
    assert_eq!(s.state(), State::WaitingToPause);
    s.tick(100);
    assert_eq!(
        s.actions(),
        [Action::HoldWriters, Action::Send(job, Word::Paused)]
    );
    if state == State::Paused {
        return s;
    }
    s.hear(100, Word::RequestFailover);
    assert_eq!(s.actions(), [Action::Send(job, Word::FailoverGranted)]);
    assert_eq!(s.state(), State::Granted);
    s
}

fn establish() -> Establish {
    Establish {
        source: name(b'a'),
        name: name(b'j'),
        ranges: ranges(),
    }
}

/// Makes a target whose migration job is in the state `state` at time 100.
fn target(state: State) -> Side2 {
    let mut t = side(false);
    t.transfers
        .establish(at(100), &t.cluster, &establish(), LINK)
        .expect("established");
    assert_eq!(
        t.actions(),
        [Action::Hide, Action::Propagate(establish().command())]
    );
    assert!(t.transfers.hidden().contains(2));
    t.hear(100, Word::Ack);
    let job = t.job();
    t.hear(100, Word::SnapshotEof);
    assert_eq!(t.actions(), [Action::Send(job, Word::RequestPause)]);
    if state == State::WaitingForPaused {
        return t;
    }
    t.hear(100, Word::Paused);
    assert_eq!(t.actions(), [Action::Send(job, Word::RequestFailover)]);
    assert_eq!(t.state(), State::Requested);
    t
}

/// The state in the CLUSTER SYNCSLOTS FINISH that `actions` propagate, if they propagate one.
fn finished(actions: &[Action]) -> Option<String> {
    actions.iter().find_map(|action| match action {
        Action::Propagate(argv) => {
            let args: Vec<&[u8]> = argv[2..].iter().map(Vec::as_slice).collect();
            match Sync::parse(&args) {
                Ok(Sync::Finish(finish)) => Some(finish.state.text().into()),
                _ => None,
            }
        }
        _ => None,
    })
}

#[test]
fn a_claim_ends_the_source_and_lets_writers_go_elsewhere() {
    let mut s = source(State::Granted);
    assert_eq!(s.holds(100, 2), (true, false));
    assert_eq!(s.holds(100, 4), (false, false), "another slot");
    s.transfers.link_lost(at(110), LINK);
    assert_eq!(
        s.state(),
        State::Granted,
        "the target closes it after its claim"
    );
    for slot in 1..=3 {
        s.cluster.set_owner(slot, Some(s.other));
        s.transfers.topology_changed(at(120), &s.cluster);
        let done = slot == 3;
        assert_eq!(s.state() == State::Success, done, "slot {slot}");
    }
    assert!(s.actions().contains(&Action::HoldWriters));
    assert_eq!(s.holds(120, 2), (false, false));
}

#[test]
fn time_alone_never_ends_a_granted_job() {
    let mut s = source(State::Granted);
    s.transfers.link_lost(at(110), LINK);
    for ms in [10_000, 100_000, 100_000_000] {
        s.tick(ms);
        assert_eq!(s.state(), State::Granted, "{ms}");
    }
    assert_eq!(
        s.holds(100_000_000, 2),
        (false, true),
        "refused, not kept waiting"
    );
}

#[test]
fn the_answer_to_a_later_ping_ends_a_granted_job() {
    let mut s = source(State::Granted);
    s.cluster.nodes[s.other].answered_ping = 110;
    s.tick(120);
    assert_eq!(s.state(), State::Granted, "its connection is open");
    s.transfers.link_lost(at(110), LINK);
    s.tick(130);
    assert_eq!(
        s.state(),
        State::Granted,
        "that ping may be older than the end"
    );
    s.cluster.nodes[s.other].answered_ping = 111;
    s.tick(140);
    assert_eq!(s.state(), State::Failed);
    assert_eq!(s.holds(140, 2), (false, false));
}

#[test]
fn the_death_of_the_target_and_an_operator_end_a_granted_job() {
    let mut s = source(State::Granted);
    s.cluster.nodes[s.other].flags |= flag::FAIL;
    s.tick(130);
    assert_eq!(s.state(), State::Failed);
    let mut s = source(State::Granted);
    assert!(s.transfers.cancel(at(130)));
    assert_eq!(s.state(), State::Cancelled);
    assert!(!s.transfers.cancel(at(131)), "nothing is left");
}

#[test]
fn before_the_grant_a_time_out_resumes() {
    let mut s = source(State::Paused);
    s.tick(100 + s.transfers.limits.pause_ms);
    assert_eq!(s.state(), State::Paused);
    s.tick(101 + s.transfers.limits.pause_ms);
    assert_eq!(s.message(), "Unpaused before migration completed");
    assert_eq!(s.holds(20_000, 2), (false, false));
}

#[test]
fn a_source_fails_by_each_of_its_reasons() {
    type Reason = fn(&mut Side2);
    let reasons: [(Reason, &str); 7] = [
        (
            |s| s.transfers.link_lost(at(200), LINK),
            "Connection lost to target",
        ),
        (|s| s.transfers.flushed(at(200), None), "Data was flushed"),
        (
            |s| s.transfers.flushed(at(200), Some(2)),
            "Data was flushed",
        ),
        (
            |s| s.tick(200_000),
            "Timed out after too long with no interaction",
        ),
        (
            |s| {
                s.cluster.set_owner(2, Some(s.other));
                s.transfers.topology_changed(at(200), &s.cluster);
            },
            "Slots are no longer owned by myself",
        ),
        (
            |s| {
                let job = s.job();
                s.transfers.snapshot_ended(at(200), &job, false, 0);
            },
            "The child that sends the slots has failed",
        ),
        (
            |s| s.hear(200, Word::Paused),
            "Unexpected PAUSED from the other side",
        ),
    ];
    for (reason, message) in reasons {
        let mut s = source(State::Snapshotting);
        s.transfers.flushed(at(150), Some(4));
        assert_eq!(s.state(), State::Snapshotting, "another slot");
        reason(&mut s);
        assert_eq!((s.state(), s.message()), (State::Failed, message));
        let job = s.job();
        assert!(s.actions().contains(&Action::Disconnect(job)));
        assert!(!s.transfers.is_busy());
    }
}

#[test]
fn a_request_for_the_pause_may_come_before_the_end_of_the_child() {
    let mut s = source(State::Snapshotting);
    s.hear(150, Word::RequestPause);
    assert_eq!(s.state(), State::Snapshotting);
    let job = s.job();
    s.transfers.snapshot_ended(at(160), &job, true, 0);
    assert_eq!(s.state(), State::WaitingToPause);
    s.transfers.limits.unsent_max = Some(10);
    s.transfers.tick(at(170), &s.cluster, |_| 11);
    assert_eq!(s.state(), State::WaitingToPause, "too much is unsent");
    s.transfers.tick(at(180), &s.cluster, |_| 10);
    assert_eq!(s.state(), State::Paused);
}

#[test]
fn a_target_claims_and_finishes_when_others_can_hear_of_it() {
    let mut t = target(State::Requested);
    t.hear(110, Word::FailoverGranted);
    let job = t.job();
    assert_eq!(t.actions(), [Action::Claim(job), Action::Hide]);
    assert!(t.transfers.hidden().is_empty());
    let before = t.cluster.myself().config_epoch;
    let mut out = Vec::new();
    t.cluster.claim_slots(at(110), &ranges().set(), &mut out);
    assert!(t.cluster.myself().config_epoch > before);
    t.transfers.topology_changed(at(110), &t.cluster);
    t.tick(111);
    assert_eq!(t.state(), State::Claimed, "the claim is not on the disk");
    t.transfers.link_lost(at(112), LINK);
    let token = out.iter().find_map(|action| match action {
        BusAction::Save { token, durable } => durable.then_some(*token),
        _ => None,
    });
    let token = token.expect("a claim is saved");
    t.cluster.step(at(113), Event::Saved(token), &mut out);
    t.tick(114);
    assert_eq!(t.state(), State::Success);
    let actions = t.actions();
    assert_eq!(finished(&actions).as_deref(), Some("SUCCESS"));
    assert!(actions.contains(&Action::Disconnect(job)));
}

#[test]
fn a_late_grant_is_not_used() {
    let mut t = target(State::Requested);
    t.hear(100 + t.transfers.limits.grant_ms, Word::FailoverGranted);
    assert_eq!(t.message(), "The grant came too late");
    let job = t.job();
    assert!(t.actions().contains(&Action::Drop(job)));
}

#[test]
fn a_target_that_fails_removes_what_it_has() {
    type Reason = fn(&mut Side2);
    let reasons: [(Reason, &str); 5] = [
        (
            |t| t.transfers.link_lost(at(200), LINK),
            "Connection lost to source",
        ),
        (|t| t.transfers.link_failed(at(200), LINK, "OOM"), "OOM"),
        (|t| t.transfers.flushed(at(200), None), "Data was flushed"),
        (
            |t| {
                t.cluster.set_owner(2, Some(t.cluster.me));
                t.transfers.topology_changed(at(200), &t.cluster);
            },
            "Slots are no longer owned by source node",
        ),
        (
            |t| t.hear(200, Word::SnapshotEof),
            "Unexpected SNAPSHOT-EOF from the other side",
        ),
    ];
    for (reason, message) in reasons {
        let mut t = target(State::WaitingForPaused);
        reason(&mut t);
        assert_eq!((t.state(), t.message()), (State::Failed, message));
        let (job, actions) = (t.job(), t.actions());
        assert!(actions.contains(&Action::Drop(job)));
        assert_eq!(finished(&actions).as_deref(), Some("FAILED"));
        assert!(t.transfers.hidden().is_empty());
    }
}

#[test]
fn a_target_refuses_what_it_can_not_take() {
    let mut t = target(State::Requested);
    let mut other = establish();
    other.name = name(b'k');
    let refuse = |t: &mut Side2, request: &Establish| {
        t.transfers
            .establish(at(200), &t.cluster, request, 9)
            .expect_err("refused")
    };
    assert_eq!(
        refuse(&mut t, &other),
        "Slot is already being imported on the target by a different migration"
    );
    other.source = name(b'x');
    assert_eq!(
        refuse(&mut t, &other),
        "Target node does not know the source node"
    );
    other.source = name(b'b');
    assert_eq!(refuse(&mut t, &other), "Source node is target node itself");
    other.source = name(b'a');
    other.ranges = Ranges::default();
    other.ranges.add(11, 11).expect("a range");
    assert_eq!(
        refuse(&mut t, &other),
        "Target node does not agree about current slot ownership"
    );
    assert!(t.transfers.hear(at(200), 9, Word::Ack).is_err());
}

#[test]
fn a_replica_hides_the_slots_until_its_primary_has_finished() {
    for (state, ends) in [
        (FinalState::Success, State::Success),
        (FinalState::Failed, State::Failed),
    ] {
        let mut r = side(false);
        r.transfers.follow(at(100), &establish());
        r.transfers.follow(at(100), &establish());
        assert_eq!(r.transfers.jobs().len(), 1, "a name is used once");
        assert!(r.transfers.hidden().contains(1));
        let finish = Finish {
            name: establish().name,
            state,
            message: "m".into(),
        };
        assert_eq!(r.transfers.finish(at(110), &finish), Ok(()));
        assert_eq!((r.state(), r.message()), (ends, "m"));
        assert!(r.transfers.finish(at(120), &finish).is_err());
        assert!(r.transfers.hidden().is_empty());
    }
}

/// The primary has a job of state OnPrimary, because it was promoted or restarted during an import.
#[test]
fn a_primary_ends_the_imports_that_it_knows_from_another() {
    let mut t = side(false);
    t.transfers.follow(at(100), &establish());
    t.tick(110);
    assert_eq!(t.state(), State::Failed);
    let (job, actions) = (t.job(), t.actions());
    assert!(actions.contains(&Action::Drop(job)));
    assert_eq!(finished(&actions).as_deref(), Some("FAILED"));
}

#[test]
fn only_so_many_ended_jobs_are_kept() {
    let mut s = source(State::Connecting);
    s.transfers.cancel(at(110));
    s.transfers.limits.log_max = 1;
    let wishes = vec![(ranges(), name(b'b'))];
    s.transfers
        .export(at(120), &s.cluster, wishes, &mut Random::from_seed(3));
    s.transfers.cancel(at(130));
    let last = s.job();
    s.tick(140);
    assert_eq!(s.transfers.jobs().len(), 1);
    assert_eq!(s.job(), last, "the youngest stays");
}
