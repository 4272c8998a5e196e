use super::*;
use crate::util::random::Random;

const PING: u32 = 1;
const AUTH: u32 = 2;
const PORT: u32 = 3;
const ADDRESS: u32 = 4;
const CAPA: u32 = 5;
const VERSION: u32 = 6;
const PSYNC: u32 = 7;

/// Error replies to PING of a primary that requires a password, or refuses PING to this user.
const NOT_YET: &[&str] = &["NOAUTH", "NOPERM", "ERR operation not permitted"];

/// The handshake of a replica. Requests between PING and PSYNC are pipelined. PSYNC is not
/// pipelined: Redis refuses PSYNC while replies to other requests are unsent ("SYNC and PSYNC are
/// invalid with pending output").
fn replica_plan() -> Plan {
    let conf = |tag, words: &[&str]| {
        let mut argv = vec!["REPLCONF"];
        argv.extend(words);
        Step::new(tag, &argv).errors(Errors::Tolerated)
    };
    let script = vec![
        Step::new(PING, &["PING"])
            .expect(Expect::Status("PONG"))
            .errors(Errors::FatalExcept(NOT_YET))
            .wait(),
        Step::auth(AUTH, Some("repl"), "secret"),
        conf(PORT, &["listening-port", "6380"]),
        conf(ADDRESS, &["ip-address", "10.0.0.2"]),
        conf(CAPA, &["capa", "eof", "capa", "psync2"]),
        conf(VERSION, &["version", "7.2.4"]).wait(),
        Step::new(PSYNC, &["PSYNC", "?", "-1"])
            .expect(Expect::Line)
            .errors(Errors::Tolerated)
            .timeout(60_000),
    ];
    Plan::new(script, Unasked::Keep, 1000)
}

/// A link's state machine, its time, and the actions that it has returned.
struct Bench {
    link: Link,
    now: u64,
    actions: Vec<Action>,
}

impl Bench {
    fn new(plan: Plan) -> Bench {
        Bench {
            link: Link::new(0, plan),
            now: 0,
            actions: Vec::new(),
        }
    }

    fn connected(plan: Plan) -> Bench {
        let mut bench = Bench::new(plan);
        bench.event(Event::Connected);
        bench
    }

    fn event(&mut self, event: Event) {
        self.link.step(self.now, event, &mut self.actions);
    }

    fn receive(&mut self, bytes: &[u8]) {
        self.event(Event::Received(bytes));
    }

    /// Lets the peer accept all of the link's output, and returns this output.
    fn sent(&mut self) -> String {
        let bytes = self.link.output().to_vec();
        self.event(Event::Sent(bytes.len()));
        String::from_utf8_lossy(&bytes).replace("\r\n", " ")
    }

    fn push(&mut self, step: Step) {
        let now = self.now;
        self.link.push(now, step);
        self.event(Event::Tick);
    }

    fn at(&mut self, now: u64) -> Vec<Action> {
        self.now = now;
        self.event(Event::Tick);
        self.taken()
    }

    fn taken(&mut self) -> Vec<Action> {
        std::mem::take(&mut self.actions)
    }
}

fn status(tag: u32, text: &str) -> Action {
    let reply = Reply::Status(text.into());
    Action::Reply { tag, reply }
}

fn error(tag: u32, text: &str) -> Action {
    let reply = Reply::Error(text.into());
    Action::Reply { tag, reply }
}

/// A link whose handshake is complete, with a timeout of 100 ms.
fn ready(unasked: Unasked) -> Bench {
    let mut bench = Bench::connected(Plan::new(Vec::new(), unasked, 100));
    assert_eq!(bench.taken(), [Action::Ready]);
    bench
}

#[test]
fn the_handshake_of_a_replica() {
    let mut bench = Bench::connected(replica_plan());
    assert_eq!(bench.sent(), "*1 $4 PING ");
    assert_eq!(bench.taken(), []);
    bench.receive(b"-NOAUTH Authentication required.\r\n");
    assert_eq!(
        bench.taken(),
        [error(PING, "NOAUTH Authentication required.")]
    );
    assert_eq!(
        bench.sent(),
        "*3 $4 AUTH $4 repl $6 secret \
         *3 $8 REPLCONF $14 listening-port $4 6380 \
         *3 $8 REPLCONF $10 ip-address $8 10.0.0.2 \
         *5 $8 REPLCONF $4 capa $3 eof $4 capa $6 psync2 \
         *3 $8 REPLCONF $7 version $5 7.2.4 "
    );
    bench.receive(b"+OK\r\n+OK\r\n-ERR Unrecognized REPLCONF option\r\n+OK\r\n");
    assert_eq!(bench.sent(), "");
    bench.receive(b"-ERR syntax error\r\n");
    assert_eq!(bench.sent(), "*3 $5 PSYNC $1 ? $2 -1 ");
    bench.receive(b"\n\n\n+FULLRESYNC abc 42\r\n\n$5\r\nREDIS");
    assert_eq!(
        bench.taken(),
        [
            status(AUTH, "OK"),
            status(PORT, "OK"),
            error(ADDRESS, "ERR Unrecognized REPLCONF option"),
            status(CAPA, "OK"),
            error(VERSION, "ERR syntax error"),
            status(PSYNC, "FULLRESYNC abc 42"),
            Action::Ready,
        ]
    );
    assert!(bench.link.is_open() && !bench.link.wants_input());
    let rest = bench.link.take_rest();
    assert_eq!(rest.received, b"\n$5\r\nREDIS");
    assert_eq!(rest.unsent, b"");
}

/// A primary's replies to a replica's handshake, with keep-alive line feeds, and the first bytes of
/// the replication stream.
const REPLIES: &[u8] =
    b"+PONG\r\n\n+OK\r\n+OK\r\n-ERR no\r\n+OK\r\n:1\r\n\n\n+CONTINUE abc\r\n*1\r\n$4\r\nPING\r\n";

/// Passes the replies to a replica's handshake to a link in `pieces`. Returns the actions of the
/// link, the bytes that remain, and the requests that were sent.
fn replica_hears(pieces: &[&[u8]]) -> (Vec<Action>, Vec<u8>, String) {
    let mut bench = Bench::connected(replica_plan());
    let mut sent = bench.sent();
    for piece in pieces {
        bench.receive(piece);
        sent += &bench.sent();
    }
    let rest = bench.link.take_rest().received;
    (bench.taken(), rest, sent)
}

#[test]
fn a_handshake_cut_anywhere_is_the_same() {
    let whole = replica_hears(&[REPLIES]);
    assert_eq!(whole.0.last(), Some(&Action::Ready));
    assert_eq!(whole.1, b"*1\r\n$4\r\nPING\r\n");
    for first in 0..=REPLIES.len() {
        for second in first..=REPLIES.len() {
            let pieces = [
                &REPLIES[..first],
                &REPLIES[first..second],
                &REPLIES[second..],
            ];
            assert_eq!(replica_hears(&pieces), whole, "cut at {first}, {second}");
        }
    }
    let bytes: Vec<&[u8]> = REPLIES.chunks(1).collect();
    assert_eq!(replica_hears(&bytes), whole);
}

/// Like [`a_handshake_cut_anywhere_is_the_same`], for a peer that accepts the requests byte by
/// byte.
#[test]
fn requests_that_are_sent_byte_by_byte_are_the_same() {
    let mut bench = Bench::connected(replica_plan());
    let mut sent = Vec::new();
    bench.receive(b"+PONG\r\n");
    while let Some(&byte) = bench.link.output().first() {
        sent.push(byte);
        bench.event(Event::Sent(1));
    }
    assert_eq!(sent, {
        let mut whole = Bench::connected(replica_plan());
        whole.receive(b"+PONG\r\n");
        whole.link.output().to_vec()
    });
}

#[test]
fn each_reply_cut_anywhere_is_the_same() {
    let replies = b"*3\r\n$3\r\nabc\r\n*2\r\n:-7\r\n*0\r\n$-1\r\n$0\r\n\r\n+\r\n*-1\r\n-E\r\n";
    let parse = |cuts: [usize; 2]| {
        let mut bench = ready(Unasked::Deliver);
        for piece in [
            &replies[..cuts[0]],
            &replies[cuts[0]..cuts[1]],
            &replies[cuts[1]..],
        ] {
            bench.receive(piece);
        }
        bench.taken()
    };
    let inner = Reply::Array(vec![Reply::Integer(-7), Reply::Array(Vec::new())]);
    let outer = vec![Reply::Bulk(b"abc".to_vec()), inner, Reply::Null];
    let expected = [
        Reply::Array(outer),
        Reply::Bulk(Vec::new()),
        Reply::Status(Vec::new()),
        Reply::Null,
        Reply::Error(b"E".to_vec()),
    ]
    .map(Action::Message);
    for first in 0..=replies.len() {
        for second in first..=replies.len() {
            assert_eq!(parse([first, second]), expected, "cut at {first}, {second}");
        }
    }
}

#[test]
fn a_line_may_be_of_a_kind_that_replies_do_not_have() {
    let sync = || {
        let step = Step::new(1, &["SYNC"]).expect(Expect::Line);
        Bench::connected(Plan::new(vec![step], Unasked::Keep, 100))
    };
    let mut bench = sync();
    bench.receive(b"\n$ENDOFF:42 abc 0 7\r\n$EOF:");
    let reply = Reply::Line(b"$ENDOFF:42 abc 0 7".to_vec());
    assert_eq!(
        bench.taken(),
        [Action::Reply { tag: 1, reply }, Action::Ready]
    );
    assert_eq!(bench.link.take_rest().received, b"$EOF:");
    let mut bench = sync();
    bench.receive(b"-LOADING\r\n");
    let error = b"LOADING".to_vec();
    assert_eq!(
        bench.taken(),
        [Action::Failed(Failure::Refused { tag: 1, error })]
    );
}

#[test]
fn a_step_that_waits_holds_back_only_those_behind_it() {
    let mut bench = ready(Unasked::Refuse);
    for step in [
        Step::new(1, &["A"]),
        Step::new(2, &["B"]).wait(),
        Step::new(3, &["C"]),
    ] {
        bench.push(step);
    }
    assert_eq!(bench.sent(), "*1 $1 A *1 $1 B ");
    bench.receive(b"+a\r\n");
    assert_eq!(bench.sent(), "");
    bench.receive(b"+b\r\n");
    assert_eq!(bench.sent(), "*1 $1 C ");
    bench.receive(b"+c\r\n");
    assert_eq!(
        bench.taken(),
        [status(1, "a"), status(2, "b"), status(3, "c")]
    );
}

#[test]
fn an_error_is_fatal_unless_the_step_tolerates_it() {
    let fails = |step: Step, reply: &[u8]| {
        let mut bench = ready(Unasked::Refuse);
        bench.push(step);
        bench.receive(reply);
        bench.taken()
    };
    let refused = |text: &str| {
        let error = text.as_bytes().to_vec();
        [Action::Failed(Failure::Refused { tag: 1, error })]
    };
    let step = || Step::new(1, &["X"]);
    assert_eq!(fails(step(), b"-ERR x\r\n"), refused("ERR x"));
    assert_eq!(
        fails(step().errors(Errors::Tolerated), b"-ERR x\r\n"),
        [error(1, "ERR x")]
    );
    let except = || step().errors(Errors::FatalExcept(&["NOAUTH"]));
    assert_eq!(fails(except(), b"-NOAUTH\r\n"), [error(1, "NOAUTH")]);
    assert_eq!(fails(except(), b"-ERR NOAUTH\r\n"), refused("ERR NOAUTH"));
    let auth = || Step::auth(1, None, "secret");
    assert_eq!(fails(auth(), b"+OK\r\n"), [status(1, "OK")]);
    assert_eq!(fails(auth(), b"-WRONGPASS\r\n"), refused("WRONGPASS"));
    let reply = Reply::Integer(1);
    assert_eq!(
        fails(auth(), b":1\r\n"),
        [Action::Failed(Failure::Unexpected { tag: 1, reply })]
    );
}

#[test]
fn each_reply_has_its_time_from_the_moment_when_it_is_due() {
    let mut bench = ready(Unasked::Refuse);
    assert_eq!(bench.link.deadline(), None);
    bench.push(Step::new(1, &["A"]));
    bench.push(Step::new(2, &["B"]).timeout(500));
    bench.now = 10;
    bench.sent();
    assert_eq!(bench.link.deadline(), Some(110));
    assert_eq!(bench.at(109), []);
    bench.receive(b"+a\r\n");
    assert_eq!(bench.taken(), [status(1, "a")]);
    assert_eq!(bench.link.deadline(), Some(609));
    // A keep-alive line feed restarts the timeout of a reply, an incomplete reply does not.
    bench.now = 300;
    bench.receive(b"\n+b");
    assert_eq!(bench.link.deadline(), Some(800));
    bench.now = 700;
    bench.receive(b"bb");
    assert_eq!(bench.at(799), []);
    assert_eq!(
        bench.at(800),
        [Action::Failed(Failure::ReplyTimeout { tag: 2 })]
    );
    assert_eq!(bench.link.deadline(), None);
}

/// A peer that does not reply is detected by the timeout of the first reply, even while further
/// requests are sent to the peer.
#[test]
fn later_requests_give_the_first_reply_no_more_time() {
    let mut bench = ready(Unasked::Refuse);
    for now in [0, 40, 80] {
        bench.now = now;
        bench.push(Step::new(now as u32, &["PING"]));
        bench.sent();
    }
    assert_eq!(bench.link.deadline(), Some(100));
}

#[test]
fn a_large_request_that_moves_does_not_run_out_of_time() {
    let mut bench = ready(Unasked::Refuse);
    bench.push(Step::new(1, &["RESTORE", &"x".repeat(1000)]));
    for now in (90..900).step_by(90) {
        assert_eq!(bench.at(now), []);
        bench.event(Event::Sent(100));
    }
    bench.sent();
    assert_eq!(
        bench.at(1000),
        [Action::Failed(Failure::ReplyTimeout { tag: 1 })]
    );
}

#[test]
fn a_peer_that_takes_nothing_is_noticed_without_a_reply_to_wait_for() {
    let mut bench = ready(Unasked::Refuse);
    bench.now = 1000;
    bench.push(Step::new(1, &["REPLCONF", "ACK", "7"]).expect(Expect::Nothing));
    assert_eq!(bench.link.deadline(), Some(1100));
    bench.now = 1050;
    bench.event(Event::Sent(1));
    assert_eq!(bench.at(1149), []);
    assert_eq!(bench.at(1150), [Action::Failed(Failure::SendTimeout)]);
}

#[test]
fn connecting_has_a_time_of_its_own() {
    let plan = || Plan {
        connect_ms: 50,
        ..Plan::new(Vec::new(), Unasked::Refuse, 100)
    };
    let mut bench = Bench::new(plan());
    assert_eq!(bench.link.deadline(), Some(50));
    assert_eq!(bench.at(49), []);
    assert_eq!(bench.at(50), [Action::Failed(Failure::ConnectTimeout)]);
    let mut bench = Bench::new(plan());
    bench.event(Event::Connected);
    assert_eq!(bench.at(50), [Action::Ready]);
}

/// `repl-timeout` may be changed while a handshake waits.
#[test]
fn another_timeout_is_that_of_what_is_due_too() {
    let mut bench = Bench::new(replica_plan());
    bench.link.set_timeout(300);
    assert_eq!(bench.link.deadline(), Some(300));
    bench.now = 100;
    bench.event(Event::Connected);
    bench.sent();
    assert_eq!(bench.link.deadline(), Some(400));
    bench.link.set_timeout(5000);
    assert_eq!(bench.at(400), []);
    bench.link.set_timeout(200);
    let late = Failure::ReplyTimeout { tag: PING };
    assert_eq!(bench.at(401), [Action::Failed(late)]);
}

#[test]
fn a_failed_link_fails_once_and_does_nothing_more() {
    let mut bench = Bench::new(replica_plan());
    let refused = Failure::Connect("Connection refused".into());
    bench.event(Event::Failed(refused.clone()));
    bench.event(Event::Connected);
    bench.receive(b"+PONG\r\n");
    bench.event(Event::Closed);
    bench.push(Step::new(1, &["A"]));
    assert_eq!(bench.taken(), [Action::Failed(refused)]);
    assert_eq!(bench.link.output(), b"");
}

#[test]
fn a_peer_that_closes_ends_the_link_wherever_it_is() {
    for upto in 0..REPLIES.len() {
        let mut bench = Bench::connected(replica_plan());
        bench.receive(&REPLIES[..upto]);
        bench.event(Event::Closed);
        assert_eq!(
            bench.taken().last(),
            Some(&Action::Failed(Failure::Closed)),
            "after {upto} bytes"
        );
    }
}

#[test]
fn an_orderly_close_waits_for_what_was_pushed() {
    let mut bench = ready(Unasked::Refuse);
    bench.push(Step::new(1, &["A"]));
    bench.link.finish();
    bench.push(Step::new(2, &["B"]));
    assert_eq!(bench.sent(), "*1 $1 A ");
    assert_eq!(bench.taken(), []);
    bench.receive(b"+a\r\n");
    assert_eq!(bench.taken(), [status(1, "a"), Action::Closed]);
    // If `finish` is called before there is a connection, the link ends after the same replies.
    let mut bench = Bench::new(Plan::new(vec![Step::new(1, &["A"])], Unasked::Refuse, 100));
    bench.push(Step::new(2, &["B"]));
    bench.link.finish();
    assert_eq!(bench.at(0), []);
    bench.event(Event::Connected);
    assert_eq!(bench.sent(), "*1 $1 A *1 $1 B ");
    bench.receive(b"+a\r\n+b\r\n");
    assert_eq!(
        bench.taken(),
        [
            status(1, "a"),
            Action::Ready,
            status(2, "b"),
            Action::Closed
        ]
    );
}

#[test]
fn bytes_without_a_request_are_kept_delivered_or_refused() {
    let mut bench = ready(Unasked::Refuse);
    bench.receive(b"\n");
    assert_eq!(bench.taken(), []);
    bench.receive(b"+");
    assert_eq!(bench.taken(), [Action::Failed(Failure::Unasked)]);
    let mut bench = ready(Unasked::Deliver);
    bench.receive(b"+a\r\n+b\r\n");
    let message = |text: &str| Action::Message(Reply::Status(text.into()));
    assert_eq!(bench.taken(), [message("a"), message("b")]);
    let mut bench = ready(Unasked::Keep);
    bench.receive(b"+a\r\n+b\r\n");
    assert_eq!(bench.taken(), []);
    // A request that is sent among messages takes the next message as its reply, as
    // `Unasked::Deliver` says.
    bench.push(Step::new(1, &["A"]));
    assert_eq!(bench.taken(), [status(1, "a")]);
    assert_eq!(bench.link.take_rest().received, b"+b\r\n");
}

#[test]
fn replies_have_limits() {
    let fails = |bytes: &[u8], reply_max| {
        let mut bench = Bench::connected(Plan {
            reply_max,
            ..Plan::new(vec![Step::new(1, &["A"])], Unasked::Keep, 100)
        });
        bench.receive(bytes);
        match bench.taken().pop() {
            Some(Action::Failed(Failure::Malformed(reason))) => Some(reason),
            _ => None,
        }
    };
    let line = |len: usize| format!("+{}", "x".repeat(len - 1)).into_bytes();
    let whole = |len| [line(len), b"\r\n".to_vec()].concat();
    let long = Some(Malformed::LineTooLong);
    assert_eq!(fails(&whole(LINE_MAX - 1), usize::MAX), None);
    assert_eq!(fails(&whole(LINE_MAX + 1), usize::MAX), long);
    assert_eq!(fails(&line(LINE_MAX), usize::MAX), None);
    assert_eq!(fails(&line(LINE_MAX + 1), usize::MAX), long);
    // A bulk string whose length is too large fails before its bytes arrive.
    let large = Some(Malformed::ReplyTooLong);
    assert_eq!(fails(b"$97\r\n", 100), None);
    assert_eq!(fails(b"$98\r\n", 100), large);
    assert_eq!(fails(b"$9223372036854775807\r\n", 100), large);
    assert_eq!(fails(b"*34\r\n", 100), large);
    assert_eq!(fails(b"*2\r\n$60\r\n", 100), None);
    assert_eq!(fails(&b"*9223372036854775807\r\n".repeat(2), 100), large);
    let deep = |n| b"*1\r\n".repeat(n);
    assert_eq!(fails(&deep(DEPTH_MAX), 1000), None);
    assert_eq!(fails(&deep(DEPTH_MAX + 1), 1000), Some(Malformed::TooDeep));
}

#[test]
fn garbage_is_an_error() {
    let cases: &[(&[u8], Malformed)] = &[
        (b"HTTP/1.1 400\r\n", Malformed::Kind(b'H')),
        (b"\r\n", Malformed::Kind(b'\n')),
        (b"%1\r\n", Malformed::Kind(b'%')),
        (b"$x\r\n", Malformed::Number),
        (b"$-2\r\n", Malformed::Number),
        (b"*-2\r\n", Malformed::Number),
        (b":1.5\r\n", Malformed::Number),
        (b"*99999999999999999999\r\n", Malformed::Number),
        (b"$1\r\nabc", Malformed::BulkEnd),
    ];
    for (bytes, reason) in cases {
        let mut bench = ready(Unasked::Deliver);
        bench.receive(bytes);
        assert_eq!(
            bench.taken(),
            [Action::Failed(Failure::Malformed(*reason))],
            "{}",
            bytes.escape_ascii()
        );
    }
}

/// Passes random bytes in random pieces to links: nothing panics, and no action follows the last
/// action of a link.
#[test]
fn no_bytes_make_a_machine_panic() {
    let mut random = Random::from_seed(7);
    let alphabet = b"+-:$*\r\n0123456789-aOK\n\r";
    for _ in 0..20_000 {
        let mut bench = Bench::connected(replica_plan());
        for _ in 0..4 {
            let len = random.below(24);
            let piece: Vec<u8> = (0..len)
                .map(|_| alphabet[random.below(alphabet.len() as u64) as usize])
                .collect();
            bench.receive(&piece);
        }
        let ends = |action: &&Action| matches!(action, Action::Failed(_) | Action::Closed);
        let actions = bench.taken();
        let end = actions.iter().position(|action| ends(&action));
        assert!(end.is_none_or(|at| at == actions.len() - 1));
    }
}
