//! FAILOVER on the primary that hands its role over to a replica: a state machine without sockets
//! and clock.
//!
//! ```text
//!   FAILOVER ─> WaitingForSync ─┬─ a replica has the whole stream, or FORCE and the time is over ─> InProgress
//!               writes wait     └─ ABORT, or the time is over ─> Idle
//!
//!   InProgress ─> PSYNC id offset FAILOVER to the target ─┬─ accepted ───────> Idle, as its replica
//!   this server is a replica, writes still wait           └─ rejected, ABORT ─> Idle, as a primary again
//! ```
//!
//! If the link breaks between the request and its reply, the target may have become a primary, and
//! two primaries would diverge. So the request `PSYNC id offset FAILOVER` is repeated: a target
//! that then replies that it is a primary has accepted the first request, and a target to which no
//! connection can be made counts as not having accepted the request.
//!
//! **Invariant:** writes are held back exactly while the state is not `Idle`; this server follows
//! the target exactly in `InProgress` (`tests::every_sequence_of_events_keeps_one_primary`).

/// The address of a replica, as FAILOVER TO names it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Address {
    pub host: Box<str>,
    pub port: u16,
}

/// The arguments of FAILOVER.
#[derive(Clone, Default, Debug)]
pub struct Request {
    /// The replica of FAILOVER's `TO host port`; `None` if the target is the first replica that has
    /// the whole replication stream.
    pub target: Option<Address>,
    /// The Unix time in milliseconds at which the wait for a replica ends; `None` if FAILOVER has
    /// no TIMEOUT.
    pub deadline_ms: Option<i64>,
    /// FAILOVER's `FORCE`: at the deadline the target takes over, even if it does not have the
    /// whole replication stream.
    pub force: bool,
}

/// The number of requests to the target without a reply after which a failover is aborted.
const UNANSWERED_MAX: u8 = 3;

/// The progress of a failover.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub enum State {
    #[default]
    Idle,
    WaitingForSync,
    InProgress {
        /// Whether the request `PSYNC id offset FAILOVER` was sent to the target on the present
        /// link.
        asked: bool,
        /// The number of PSYNC FAILOVER requests whose link broke before the reply. If one was not
        /// replied to, the target may have become a primary.
        unanswered: u8,
    },
}

/// An event that concerns a failover.
#[derive(Clone, Copy, Debug)]
pub enum Event<'a> {
    /// A turn of the event loop; `synced` are the replicas that have acknowledged the whole
    /// replication stream.
    Turn { now_ms: i64, synced: &'a [Address] },
    /// A client has sent FAILOVER ABORT.
    Abort,
    /// This server has sent `PSYNC id offset FAILOVER` to the target.
    Asked,
    /// The target has replied to `PSYNC id offset FAILOVER`.
    Replied(Verdict),
    /// The link to the target broke or, if `connected` is false, no connection was established.
    LinkFailed { connected: bool },
}

/// The target's reply to `PSYNC id offset FAILOVER`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// `+CONTINUE` or `+FULLRESYNC`: the target is a primary now.
    Accepted,
    /// An error reply: the target was a primary before it received `PSYNC .. FAILOVER`.
    IsPrimary,
    Rejected,
}

/// What the server must do after an event of a failover.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Action {
    /// Become a replica of the target. If `forced`, the target may lack a part of the replication
    /// stream.
    Follow { target: Address, forced: bool },
    /// End the pause of writes: the target is the primary.
    Finish,
    /// End the failover: this server stays the primary, or becomes a primary again. If `promote`,
    /// this server has become a replica of the target, and must be promoted.
    Abort {
        target: Option<Address>,
        reason: &'static str,
        promote: bool,
    },
}

/// The state of FAILOVER on this server; `State::Idle` if no failover runs.
#[derive(Default, Debug)]
pub struct Failover {
    state: State,
    request: Request,
}

impl Failover {
    /// Whether a failover is running.
    pub fn is_running(&self) -> bool {
        self.state != State::Idle
    }

    /// Whether this server has become a replica of the target, which is not yet known to be a
    /// primary.
    pub fn is_in_progress(&self) -> bool {
        matches!(self.state, State::InProgress { .. })
    }

    /// Whether the failover waits until a replica has the whole replication stream.
    pub fn is_waiting(&self) -> bool {
        self.state == State::WaitingForSync
    }

    /// The name of the state in INFO's `master_failover_state`.
    pub fn state_name(&self) -> &'static str {
        match self.state {
            State::Idle => "no-failover",
            State::WaitingForSync => "waiting-for-sync",
            State::InProgress { .. } => "failover-in-progress",
        }
    }

    /// FAILOVER: begins a failover with the arguments of the command. The caller has checked that
    /// no failover is running.
    pub fn begin(&mut self, request: Request) {
        debug_assert!(!self.is_running(), "FAILOVER has checked it");
        self.state = State::WaitingForSync;
        self.request = request;
    }

    /// Handles an event of a failover. Returns what the server must do; `None` if nothing.
    pub fn step(&mut self, event: Event) -> Option<Action> {
        match (self.state, event) {
            (State::Idle, _) => None,
            (_, Event::Abort) => Some(self.abort("Failover manually aborted")),
            (State::WaitingForSync, Event::Turn { now_ms, synced }) => self.wait(now_ms, synced),
            (State::InProgress { unanswered, .. }, Event::Asked) => {
                let asked = true;
                self.state = State::InProgress { asked, unanswered };
                None
            }
            (State::InProgress { unanswered, .. }, Event::Replied(verdict)) => {
                Some(self.replied(verdict, unanswered > 0))
            }
            (State::InProgress { asked, unanswered }, Event::LinkFailed { connected }) => {
                self.link_failed(unanswered + u8::from(asked), connected)
            }
            (State::WaitingForSync, _) | (State::InProgress { .. }, Event::Turn { .. }) => None,
        }
    }

    /// Handles a turn of the loop while the failover waits for a replica that has the whole
    /// replication stream.
    fn wait(&mut self, now_ms: i64, synced: &[Address]) -> Option<Action> {
        let late = self
            .request
            .deadline_ms
            .is_some_and(|deadline_ms| now_ms >= deadline_ms);
        let target = match &self.request.target {
            Some(target) if late && self.request.force => Some(target),
            _ if late => return Some(self.abort("Replica never caught up before timeout")),
            Some(target) => synced.contains(target).then_some(target),
            None => synced.first(),
        };
        let target = target?.clone();
        self.request.target = Some(target.clone());
        self.state = State::InProgress {
            asked: false,
            unanswered: 0,
        };
        let forced = late;
        Some(Action::Follow { target, forced })
    }

    /// Handles the end of a link to the target. After a request without a reply the target may be a
    /// primary, so the request is sent again.
    fn link_failed(&mut self, unanswered: u8, connected: bool) -> Option<Action> {
        if unanswered > 0 && !connected {
            return Some(self.abort("Write error to failover target"));
        }
        if unanswered >= UNANSWERED_MAX {
            return Some(self.abort("Failover target rejected psync request"));
        }
        self.state = State::InProgress {
            asked: false,
            unanswered,
        };
        None
    }

    fn replied(&mut self, verdict: Verdict, uncertain: bool) -> Action {
        match verdict {
            Verdict::Rejected => self.abort("Failover target rejected psync request"),
            Verdict::IsPrimary if !uncertain => {
                self.abort("Failover target rejected psync request")
            }
            Verdict::Accepted | Verdict::IsPrimary => {
                *self = Failover::default();
                Action::Finish
            }
        }
    }

    fn abort(&mut self, reason: &'static str) -> Action {
        let ended = std::mem::take(self);
        Action::Abort {
            promote: ended.is_in_progress(),
            target: ended.request.target,
            reason,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(port: u16) -> Address {
        Address {
            host: "replica".into(),
            port,
        }
    }

    fn begun(request: Request) -> Failover {
        let mut failover = Failover::default();
        failover.begin(request);
        failover
    }

    fn to(port: u16) -> Request {
        Request {
            target: Some(address(port)),
            ..Request::default()
        }
    }

    fn turn(now_ms: i64, synced: &[Address]) -> Event<'_> {
        Event::Turn { now_ms, synced }
    }

    fn follow(port: u16, forced: bool) -> Option<Action> {
        let target = address(port);
        Some(Action::Follow { target, forced })
    }

    fn aborted(reason: &'static str, promote: bool) -> Option<Action> {
        Some(Action::Abort {
            target: Some(address(1)),
            reason,
            promote,
        })
    }

    #[test]
    fn the_named_replica_takes_over_and_no_other() {
        let mut failover = begun(to(1));
        assert_eq!(failover.step(turn(0, &[address(2)])), None);
        assert_eq!(failover.state_name(), "waiting-for-sync");
        let both = [address(2), address(1)];
        assert_eq!(failover.step(turn(0, &both)), follow(1, false));
        assert_eq!(failover.state_name(), "failover-in-progress");
        assert_eq!(failover.step(Event::Asked), None);
        let accepted = Event::Replied(Verdict::Accepted);
        assert_eq!(failover.step(accepted), Some(Action::Finish));
        assert_eq!(failover.state_name(), "no-failover");
    }

    #[test]
    fn without_a_name_the_first_synced_replica_takes_over() {
        let mut failover = begun(Request::default());
        assert_eq!(failover.step(turn(0, &[])), None);
        let both = [address(2), address(1)];
        assert_eq!(failover.step(turn(0, &both)), follow(2, false));
    }

    #[test]
    fn at_the_deadline_force_decides() {
        for force in [false, true] {
            let mut failover = begun(Request {
                deadline_ms: Some(100),
                force,
                ..to(1)
            });
            assert_eq!(failover.step(turn(99, &[])), None);
            let expected = match force {
                true => follow(1, true),
                false => aborted("Replica never caught up before timeout", false),
            };
            assert_eq!(failover.step(turn(100, &[])), expected);
        }
    }

    #[test]
    fn a_rejected_request_makes_this_server_a_primary_again() {
        for verdict in [Verdict::Rejected, Verdict::IsPrimary] {
            let mut failover = begun(to(1));
            failover.step(turn(0, &[address(1)]));
            failover.step(Event::Asked);
            let rejected = aborted("Failover target rejected psync request", true);
            assert_eq!(failover.step(Event::Replied(verdict)), rejected);
        }
    }

    #[test]
    fn a_lost_reply_is_asked_for_again() {
        let lost = |event: Event| {
            let mut failover = begun(to(1));
            failover.step(turn(0, &[address(1)]));
            failover.step(Event::Asked);
            let connected = true;
            assert_eq!(failover.step(Event::LinkFailed { connected }), None);
            failover.step(event)
        };
        let finished = Some(Action::Finish);
        assert_eq!(lost(Event::Replied(Verdict::IsPrimary)), finished);
        assert_eq!(lost(Event::Replied(Verdict::Accepted)), finished);
        let connected = false;
        let dead = aborted("Write error to failover target", true);
        assert_eq!(lost(Event::LinkFailed { connected }), dead);
    }

    #[test]
    fn a_target_that_never_replies_is_given_up() {
        let mut failover = begun(to(1));
        failover.step(turn(0, &[address(1)]));
        let lost = Event::LinkFailed { connected: true };
        for _ in 1..UNANSWERED_MAX {
            failover.step(Event::Asked);
            assert_eq!(failover.step(lost), None);
            // A link that breaks before the request was sent does not count.
            assert_eq!(failover.step(lost), None);
        }
        failover.step(Event::Asked);
        let ended = aborted("Failover target rejected psync request", true);
        assert_eq!(failover.step(lost), ended);
    }

    /// All events that can occur in a failover.
    fn events(synced: &[Address]) -> Vec<Event<'_>> {
        vec![
            turn(0, &[]),
            turn(0, synced),
            turn(100, &[]),
            Event::Abort,
            Event::Asked,
            Event::Replied(Verdict::Accepted),
            Event::Replied(Verdict::IsPrimary),
            Event::Replied(Verdict::Rejected),
            Event::LinkFailed { connected: true },
            Event::LinkFailed { connected: false },
        ]
    }

    /// For each form of FAILOVER, all sequences of six events keep exactly one of the two servers a
    /// primary.
    #[test]
    fn every_sequence_of_events_keeps_one_primary() {
        let synced = [address(1)];
        let events = events(&synced);
        let requests = [
            Request::default(),
            to(1),
            Request {
                deadline_ms: Some(100),
                ..to(1)
            },
            Request {
                deadline_ms: Some(100),
                force: true,
                ..to(1)
            },
        ];
        for request in requests {
            for mut code in 0..events.len().pow(6) {
                let mut failover = begun(request.clone());
                let mut follows = false;
                for _ in 0..6 {
                    let event = events[code % events.len()];
                    code /= events.len();
                    let was_running = failover.is_running();
                    let action = failover.step(event);
                    assert!(was_running || action.is_none(), "{event:?}");
                    match action {
                        Some(Action::Follow { forced, .. }) => {
                            assert!(!follows);
                            assert_eq!(forced, matches!(event, Event::Turn { now_ms: 100, .. }));
                            follows = true;
                        }
                        Some(Action::Abort { promote, .. }) => {
                            assert_eq!(promote, follows, "{event:?}");
                            follows = false;
                        }
                        Some(Action::Finish) => {
                            // `Finish` requires that the target has replied that it is a primary.
                            assert!(follows);
                            let said = matches!(
                                event,
                                Event::Replied(Verdict::Accepted | Verdict::IsPrimary)
                            );
                            assert!(said, "{event:?}");
                            follows = false;
                        }
                        None => {}
                    }
                    assert_eq!(failover.is_in_progress(), follows);
                    assert_eq!(
                        failover.is_running(),
                        failover.state_name() != "no-failover"
                    );
                }
            }
        }
    }
}
