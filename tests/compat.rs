//! Differential tests: the same generated commands to us and to four real servers, every reply judged
//! byte for byte by the rule in `tests/compat/jury.rs`.
//!
//! The commands come from `tests/compat/grammar.txt`. A generated history is a list of numbers, each the
//! seed of one command, so that proptest can shrink a failing history to the few commands that matter.
//! Most of its commands are of one group of the grammar, so that keys live long enough to become big and
//! odd. A history runs in RESP2 or RESP3; one command at a time, pipelined, inside MULTI or inside scripts;
//! half of them with small thresholds, so that every encoding is met.
//!
//! `PROPTEST_CASES` sets the number of histories (`make compat-long`), `COMPAT_SEED` another seed than the
//! fixed one; `COMPAT_GO_ON=1` prints each difference and goes on, `COMPAT_TRACE=1` shows each command,
//! `COMPAT_OPEN=1` lists where single servers differ from us without a verdict against us.
//!
//! **Differences on purpose** stand in [`ON_PURPOSE`], each with its reason.

mod common;
#[path = "compat/grammar.rs"]
mod grammar;
#[path = "compat/jury.rs"]
mod jury;
#[path = "compat/sessions.rs"]
mod sessions;
#[path = "compat/tables.rs"]
mod tables;

use aeris::util::glob::glob_match;
use common::{Conn, Reply, multibulk, parse_reply, split_replies};
use grammar::{Compare, Grammar, generate};
use jury::{Judge, Jury, in_capitals};
use proptest::prelude::*;
use proptest::test_runner::{Config, RngAlgorithm, RngSeed, TestRunner};
use std::cell::Cell;
use std::iter::Peekable;

const HISTORY: usize = 200;

/// Replies that differ on purpose: (pattern of the command in capitals, reason).
const ON_PURPOSE: &[(&str, &str)] = &[
    (
        "CLIENT LIST",
        "other connections, and fields of newer versions",
    ),
    (
        "COMMAND",
        "there are the newer commands too; compat/tables.rs compares the others",
    ),
    ("COMMAND COUNT", "the same"),
    ("COMMAND INFO", "the same"),
    ("COMMAND LIST", "the same"),
    ("COMMAND LIST FILTERBY [AP]*", "the same"),
    ("COMMAND DOCS", "the summaries are our own"),
    ("COMMAND DOCS *HELLO*", "the same"),
    (
        "[SZ]RANDMEMBER * -?????????*",
        "what repeats elements beyond proto-max-bulk-len is refused, see commands/sample.rs",
    ),
    ("HRANDFIELD * -?????????*", "the same"),
    (
        "EVAL [^R]*",
        "what does not compile is told in the words of LuaJIT's parser",
    ),
    ("EVAL_RO [^R]*", "the same"),
    ("SCRIPT LOAD *", "the same"),
    (
        "EVAL RETURN(STRING.FORMAT(*X',* 0 99999*",
        "what is beyond 64 bits has no %x in C",
    ),
    ("EVAL RETURN(STRING.FORMAT(*X',* 0 1E308", "the same"),
    ("EVAL RETURN(STRING.FORMAT(*X',* 0 INF", "the same"),
    (
        "EVAL RETURN(CMSGPACK.PACK(TONUMBER(* 0 NAN",
        "LuaJIT has one NaN, whose sign is negative",
    ),
    (
        "FUNCTION LOAD *SERVER.REGISTER*",
        "Valkey's libraries load too: `server` is another name of `redis`",
    ),
];

/// Differences that are still open: (pattern of the command in capitals, pattern of our reply, reason).
const OPEN: &[(&str, &str, &str)] = &[
    (
        "EVAL*",
        "-NOSCRIPT No matching script.\r\n",
        "Valkey's words",
    ),
    (
        "*",
        "-ERR Wrong number of args calling command*",
        "the same",
    ),
    ("*", "-ERR Unknown command called from script*", "the same"),
    ("*", "-ERR Command arguments must be strings*", "the same"),
    (
        "*",
        "-ERR Please specify at least one argument for this call*",
        "the same",
    ),
    (
        "*",
        "-ERR Command not allowed inside a transaction*",
        "the same",
    ),
    (
        "FUNCTION LOAD*",
        "-ERR Error registering*server.register_function*",
        "the same",
    ),
    (
        "EXEC",
        "-EXECABORT*",
        "MULTI and WATCH inside MULTI do not end it in Redis",
    ),
    ("EXEC", "*", "it carries one of the texts above"),
    ("BITCOUNT *", "*", "an end is needed since Redis 7.0"),
    ("CLIENT KILL ID *", "-ERR syntax error*", "Valkey's words"),
    (
        "SCAN *TYPE *",
        "-ERR unknown type name*",
        "Redis finds nothing",
    ),
    (
        "X*DEL*",
        "*",
        "ids that never were; which of two errors comes first",
    ),
    ("H*FIELDS*", "-*", "which of two errors comes first"),
    ("HEXPIRE* *", "-*", "the same"),
    ("HPE* *", "-*", "the same"),
    ("HGET[DE]* *", "-*", "the same"),
    ("HSETEX *", "-*", "the same"),
    ("XREAD* +*", "*", "the last entry of an empty stream"),
];

/// Error texts that differ on purpose: (pattern of the command in capitals, reason).
const TEXTS_ON_PURPOSE: &[(&str, &str)] =
    &[("MSETEX *", "Redis 8.4 has it too; the texts are Redis's")];

fn matches(pattern: &str, text: &[u8]) -> bool {
    glob_match(pattern.as_bytes(), text)
}

/// Whether a difference is known: on purpose, open, or an oddity of the server that shows it.
fn excused(argv: &[Vec<u8>], ours: &[u8], theirs: &[u8]) -> bool {
    let command = in_capitals(argv);
    let command = command.as_bytes();
    let is_error = ours.starts_with(b"-") && theirs.starts_with(b"-");
    on_purpose(argv)
        || is_error && TEXTS_ON_PURPOSE.iter().any(|(of, _)| matches(of, command))
        || OPEN
            .iter()
            .any(|(of, reply, _)| matches(of, command) && matches(reply, ours))
        || merges_corrupt(argv, ours)
        || remembers_errno(ours, theirs)
        || has_times_to_live(argv, theirs)
}

fn same(compare: Compare, ours: &[u8], theirs: &[u8]) -> bool {
    if errors_alike(ours, theirs) {
        return true;
    }
    match compare {
        Compare::Bytes => ours == theirs,
        Compare::Sorted => parse_reply(ours).sorted() == parse_reply(theirs).sorted(),
        Compare::Shape => shape(&parse_reply(ours)) == shape(&parse_reply(theirs)),
        Compare::Sets => sort_sets(parse_reply(ours)) == sort_sets(parse_reply(theirs)),
        Compare::UpToNul => up_to_nul(parse_reply(ours)) == up_to_nul(parse_reply(theirs)),
    }
}

/// Sets and maps in one order; arrays keep theirs.
fn sort_sets(reply: Reply) -> Reply {
    match reply {
        Reply::Many(kind @ (b'%' | b'~'), items) => Reply::Many(kind, items).sorted(),
        Reply::Many(kind, items) => Reply::Many(kind, items.into_iter().map(sort_sets).collect()),
        other => other,
    }
}

fn up_to_nul(reply: Reply) -> Reply {
    match reply {
        Reply::Bulk(mut text) => {
            text.truncate(text.iter().position(|&b| b == 0).unwrap_or(text.len()));
            Reply::Bulk(text)
        }
        Reply::Many(kind, items) => Reply::Many(kind, items.into_iter().map(up_to_nul).collect()),
        other => other,
    }
}

/// Redis lets a line's end through in the texts of some errors; ours are always one line.
fn errors_alike(ours: &[u8], theirs: &[u8]) -> bool {
    let space = |&b: &u8| if b"\r\n".contains(&b) { b' ' } else { b };
    // Valkey 9.1 has its own name here even if it was set to use Redis's words.
    let theirs = &replace(
        theirs,
        b"-ERR This Valkey command",
        b"-ERR This Redis command",
    );
    ours.starts_with(b"-") && ours.iter().map(space).eq(theirs.iter().map(space))
}

fn replace(reply: &[u8], start: &[u8], with: &[u8]) -> Vec<u8> {
    match reply.strip_prefix(start) {
        Some(rest) => [with, rest].concat(),
        None => reply.to_vec(),
    }
}

/// The kind of a reply: its length and first bytes, not its content.
fn shape(reply: &Reply) -> String {
    match reply {
        Reply::Line(line) if line.starts_with(b":") && line.get(1) != Some(&b'-') => ":n".into(),
        Reply::Line(line) => String::from_utf8_lossy(line).into_owned(),
        Reply::Bulk(_) => "$".into(),
        Reply::Many(kind, items) => format!("{}{}", char::from(*kind), items.len()),
    }
}

fn on_purpose(argv: &[Vec<u8>]) -> bool {
    let text = in_capitals(argv);
    ON_PURPOSE
        .iter()
        .any(|(pattern, _)| matches(pattern, text.as_bytes()))
}

/// Redis's SORT makes a skiplist of a small sorted set for good, whose scores ZSCAN tells with 17 digits. Ours only reads it.
fn stays_small(argv: &[Vec<u8>], replies: &[&[u8]; 2]) -> bool {
    let is = |name: &str| argv[0].eq_ignore_ascii_case(name.as_bytes());
    is("OBJECT") && replies[0].ends_with(b"listpack\r\n") && replies[1].ends_with(b"skiplist\r\n")
        || is("ZSCAN") && numbers(replies[0]) == numbers(replies[1])
}

/// The elements of a cursor's reply in any order, numbers by what they mean.
fn numbers(reply: &[u8]) -> Vec<Reply> {
    fn add(reply: Reply, out: &mut Vec<Reply>) {
        match reply {
            Reply::Many(_, items) => items.into_iter().for_each(|item| add(item, out)),
            Reply::Bulk(text) => {
                let number = std::str::from_utf8(&text)
                    .ok()
                    .and_then(|t| t.parse::<f64>().ok());
                out.push(Reply::Bulk(
                    number.map_or(text, |n| n.to_string().into_bytes()),
                ));
            }
            line => out.push(line),
        }
    }
    let mut out = Vec::new();
    add(parse_reply(reply), &mut out);
    out.sort();
    out
}

/// Redis 8.2 has another name for an encoding with times to live; the others, and ours, do not.
fn has_times_to_live(argv: &[Vec<u8>], theirs: &[u8]) -> bool {
    argv[0].eq_ignore_ascii_case(b"OBJECT") && theirs == b"$10\r\nlistpackex\r\n"
}

/// A copy of an integer that all share is one of its own in Redis. Ours shares none, and says of each small one that it did.
fn is_shared(argv: &[Vec<u8>], replies: &[&[u8]; 2]) -> bool {
    argv[0].eq_ignore_ascii_case(b"OBJECT")
        && replies[0] == b":2147483647\r\n"
        && replies[1] == b":1\r\n"
}

/// Runs behind the last register are refused since CVE-2025-32023; where 8.0.1 merges, it does not look at them, and goes on.
/// What a merge gave differs from then on.
fn merges_corrupt(argv: &[Vec<u8>], ours: &[u8]) -> bool {
    let is = |name: &str| argv[0].eq_ignore_ascii_case(name.as_bytes());
    let merges = is("PFMERGE") || is("PFCOUNT") && argv.len() > 2;
    merges && ours.starts_with(b"-INVALIDOBJ")
}

/// Redis takes for the fault of an element what C's `errno` tells of a number that was too large in an earlier command. What
/// STORE gave differs from then on.
fn remembers_errno(ours: &[u8], theirs: &[u8]) -> bool {
    let told = |reply: &[u8]| {
        contains(
            reply,
            b"-ERR One or more scores can't be converted into double",
        )
    };
    told(theirs) && !told(ours)
}

fn contains(bytes: &[u8], part: &[u8]) -> bool {
    bytes.windows(part.len()).any(|window| window == part)
}

fn show(argv: &[Vec<u8>]) -> String {
    argv.iter()
        .map(|arg| arg.escape_ascii().to_string())
        .collect::<Vec<_>>()
        .join(" ")
}

/// How the commands of a history are sent.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Way {
    /// This many before the first reply is read.
    Piped(usize),
    /// Each by `redis.pcall` of a script.
    Scripts,
    /// Some at a time in a transaction.
    Multi,
}

/// What the histories of a run share.
#[derive(Clone, Debug)]
struct Plan {
    resp: &'static str,
    theme: usize,
    way: Way,
    /// Small thresholds, so that few elements are enough for the next encoding.
    small: bool,
}

/// The settings that decide on encodings: (name, default, small).
const THRESHOLDS: &[(&str, &str, &str)] = &[
    ("list-max-listpack-size", "-2", "3"),
    ("list-compress-depth", "0", "1"),
    ("hash-max-listpack-entries", "512", "3"),
    ("hash-max-listpack-value", "64", "64"),
    ("set-max-intset-entries", "512", "3"),
    ("set-max-listpack-entries", "128", "5"),
    ("set-max-listpack-value", "64", "64"),
    ("zset-max-listpack-entries", "128", "3"),
    ("zset-max-listpack-value", "64", "64"),
    ("stream-node-max-entries", "100", "3"),
    ("hll-sparse-max-bytes", "3000", "40"),
];

/// A server as it was started, but for the thresholds. Redis 7.0 has not all of them.
fn prepare(conn: &mut Conn, plan: &Plan) {
    // Valkey ends a wait in its cron.
    assert_eq!(conn.line("CONFIG SET hz 500"), "+OK\r\n");
    for &(name, default, small) in THRESHOLDS {
        let value = if plan.small { small } else { default };
        let set = conn.line(&format!("CONFIG SET {name} {value}"));
        let unknown = set.starts_with("-ERR Unknown option");
        assert!(unknown || set == "+OK\r\n", "{name}: {set}");
    }
    for user in parse_reply(&conn.cmd(&["ACL", "USERS"])).texts() {
        if user != b"default" {
            conn.cmd(&[&b"ACL"[..], b"DELUSER", &user]);
        }
    }
    for reset in ["FLUSHALL", "SCRIPT FLUSH", "FUNCTION FLUSH"] {
        conn.line(reset);
    }
    conn.line(&format!("HELLO {}", plan.resp));
}

type Command = (Compare, Vec<Vec<u8>>);

/// What is sent alone: the reply to a MULTI decides on what may follow, and see [`is_odd_in_multi`].
fn stands_alone(argv: &[Vec<u8>]) -> bool {
    ["MULTI", "AUTH", "HELLO"]
        .iter()
        .any(|name| argv[0].eq_ignore_ascii_case(name.as_bytes()))
}

/// The next commands of a history, no more than `depth`, which are sent at once.
fn next_turn(
    history: &mut Peekable<impl Iterator<Item = Command>>,
    depth: usize,
    mut queueing: bool,
) -> Vec<Command> {
    let mut turn: Vec<Command> = Vec::new();
    while turn.len() < depth
        && !turn.last().is_some_and(|(_, argv)| stands_alone(argv))
        && let Some((compare, argv)) =
            history.next_if(|(_, argv)| turn.is_empty() || !stands_alone(argv))
    {
        // EXEC's reply is compared byte for byte: nothing in it may be unordered.
        let alike = compare == Compare::Bytes && !is_odd_in_multi(&argv) && !on_purpose(&argv);
        if !queueing || alike {
            queueing &= !ends_multi(&argv);
            turn.push((compare, argv));
        }
    }
    turn
}

/// 8.0 loses the error of an AUTH if another reply waits to be sent, as EXEC's does.
fn is_odd_in_multi(argv: &[Vec<u8>]) -> bool {
    argv[0].eq_ignore_ascii_case(b"AUTH")
}

fn ends_multi(argv: &[Vec<u8>]) -> bool {
    ["EXEC", "DISCARD", "RESET"]
        .iter()
        .any(|name| argv[0].eq_ignore_ascii_case(name.as_bytes()))
}

/// A server that takes part in a history: ours, which no judge stands for, or a judge.
struct Seat<'a> {
    judge: Option<&'a Judge>,
    conn: Conn,
}

/// One history on all servers, from an empty data set on.
struct History<'a> {
    jury: &'a Jury,
    plan: &'a Plan,
    /// Ours first, then the judges that are in step.
    seats: Vec<Seat<'a>>,
    sent: Vec<String>,
    queueing: bool,
}

impl<'a> History<'a> {
    fn new(jury: &'a Jury, plan: &'a Plan) -> History<'a> {
        let ours = std::iter::once((None, jury.aeris.connect()));
        let theirs = jury
            .judges
            .iter()
            .map(|judge| (Some(judge), judge.peer.connect()));
        let seats = ours.chain(theirs).map(|(judge, mut conn)| {
            prepare(&mut conn, plan);
            Seat { judge, conn }
        });
        History {
            jury,
            plan,
            seats: seats.collect(),
            sent: Vec::new(),
            queueing: false,
        }
    }

    /// The requests go to all servers before the first reply is read: they work at the same time.
    fn ask(&mut self, requests: &[u8], count: usize) -> Vec<Vec<Vec<u8>>> {
        self.seats
            .iter_mut()
            .for_each(|seat| seat.conn.send(requests));
        let replies = |seat: &mut Seat| (0..count).map(|_| seat.conn.reply()).collect();
        self.seats.iter_mut().map(replies).collect()
    }

    /// Judges the replies of all seats to one command; what has left is not compared.
    fn judge(
        &mut self,
        (compare, argv): &Command,
        replies: &[&[u8]],
        left: &mut [bool],
    ) -> Result<(), TestCaseError> {
        let ours = replies[0];
        let compare = match (compare, self.plan.way) {
            // In Lua a set or a map is a table, which keeps no order.
            (Compare::Bytes, Way::Scripts) => Compare::Sets,
            _ => *compare,
        };
        let mut opinions = Vec::new();
        for (at, theirs) in replies
            .iter()
            .enumerate()
            .skip(1)
            .filter(|(at, _)| !left[*at])
            .collect::<Vec<_>>()
        {
            let pair = [ours, theirs];
            let agrees =
                same(compare, ours, theirs) || stays_small(argv, &pair) || is_shared(argv, &pair);
            let excused = excused(argv, ours, theirs);
            let judge = self.seats[at].judge.expect("a judge's seat").name;
            if agrees || !excused {
                opinions.push((judge, agrees));
            }
            if !agrees {
                self.jury.note(judge, argv, ours, theirs);
                left[at] = !self.jury.changes_nothing(argv, ours, theirs);
            }
        }
        if self.jury.is_right(argv, &opinions) {
            return Ok(());
        }
        let verdicts = std::iter::zip(&self.seats, replies).map(|(seat, reply)| {
            let name = seat
                .judge
                .map_or("we say".into(), |judge| format!("{:?}", judge.name));
            format!("\n{name}\n  {}", reply.escape_ascii())
        });
        let verdicts: String = verdicts.collect();
        let found = format!(
            "{:?}, after\n  {}\nthe reply to\n  {}{verdicts}",
            self.plan,
            self.sent.join("\n  "),
            show(argv)
        );
        if goes_on() {
            eprintln!("{found}\n");
            return Ok(());
        }
        Err(TestCaseError::fail(found))
    }

    fn record(&mut self, argv: &[Vec<u8>]) {
        if is_traced() {
            eprintln!("{}", show(argv));
        }
        self.sent.push(show(argv));
        COMMANDS.set(COMMANDS.get() + 1);
    }

    /// Removes the judges that are out of step; false: none is left.
    fn retain(&mut self, left: &[bool]) -> bool {
        let mut left = left.iter();
        self.seats
            .retain(|_| !left.next().copied().unwrap_or_default());
        self.seats.len() > 1
    }

    /// Sends the commands of a turn, by scripts if the plan says so, and judges each reply.
    fn turn(&mut self, turn: &[Command]) -> Result<bool, TestCaseError> {
        let request = |(_, argv): &Command| match self.plan.way {
            Way::Scripts => in_script(argv, self.plan.resp),
            _ => multibulk(argv),
        };
        let requests: Vec<u8> = turn.iter().flat_map(request).collect();
        let replies = self.ask(&requests, turn.len());
        let mut left = vec![false; replies.len()];
        for (at, command) in turn.iter().enumerate() {
            let argv = &command.1;
            self.record(argv);
            let replies: Vec<&[u8]> = replies.iter().map(|of| &of[at][..]).collect();
            self.judge(command, &replies, &mut left)?;
            self.queueing = self.queueing && !ends_multi(argv)
                || argv[0].eq_ignore_ascii_case(b"MULTI") && replies[0] == b"+OK\r\n";
        }
        Ok(self.retain(&left))
    }

    /// The same with the commands in one transaction: each reply in EXEC's is judged by itself.
    fn transaction(&mut self, turn: &[Command]) -> Result<bool, TestCaseError> {
        let alone = |name: &str| (Compare::Bytes, vec![name.as_bytes().to_vec()]);
        let commands: Vec<Command> = std::iter::once(alone("MULTI"))
            .chain(turn.iter().cloned())
            .chain([alone("EXEC")])
            .collect();
        let requests: Vec<u8> = commands
            .iter()
            .flat_map(|(_, argv)| multibulk(argv))
            .collect();
        let replies = self.ask(&requests, commands.len());
        let mut left = vec![false; replies.len()];
        let mut queued: Vec<&Command> = Vec::new();
        for (at, command) in commands.iter().enumerate().take(commands.len() - 1) {
            self.record(&command.1);
            let replies: Vec<&[u8]> = replies.iter().map(|of| &of[at][..]).collect();
            self.judge(&(Compare::Bytes, command.1.clone()), &replies, &mut left)?;
            queued.extend((replies[0] == b"+QUEUED\r\n").then_some(command));
        }
        let exec = commands.len() - 1;
        self.record(&commands[exec].1);
        let elements: Vec<Vec<Vec<u8>>> = replies.iter().map(|of| elements(&of[exec])).collect();
        let ours = elements[0].len();
        for (at, of) in elements.iter().enumerate() {
            left[at] |= of.len() != ours;
        }
        if ours != queued.len() {
            let replies: Vec<&[u8]> = replies.iter().map(|of| &of[exec][..]).collect();
            self.judge(&commands[exec], &replies, &mut left)?;
        } else {
            for (at, command) in queued.into_iter().enumerate() {
                let missing = &b""[..];
                let replies: Vec<&[u8]> = elements
                    .iter()
                    .map(|of| of.get(at).map_or(missing, |reply| reply))
                    .collect();
                self.judge(command, &replies, &mut left)?;
            }
        }
        Ok(self.retain(&left))
    }
}

/// The elements of an array as they came; none for anything else.
fn elements(reply: &[u8]) -> Vec<Vec<u8>> {
    let line_end = reply
        .iter()
        .position(|&b| b == b'\n')
        .map_or(reply.len(), |at| at + 1);
    if reply.starts_with(b"*") {
        split_replies(&reply[line_end..])
    } else {
        Vec::new()
    }
}

/// A script that runs the command, in the protocol of the history.
fn in_script(argv: &[Vec<u8>], resp: &str) -> Vec<u8> {
    let script = format!("redis.setresp({resp}) return redis.pcall(unpack(ARGV))");
    let mut wrapped = vec![b"EVAL".to_vec(), script.into_bytes(), b"0".to_vec()];
    wrapped.extend_from_slice(argv);
    multibulk(&wrapped)
}

fn compare_history(
    grammar: &Grammar,
    jury: &Jury,
    plan: &Plan,
    seeds: &[u64],
) -> Result<(), TestCaseError> {
    let mut history = History::new(jury, plan);
    let commands = seeds
        .iter()
        .map(|&seed| generate(grammar, plan.theme, seed));
    if plan.way == Way::Multi {
        let commands: Vec<Command> = commands
            .filter(|(_, argv)| !ends_multi(argv) && !stands_alone(argv) && !on_purpose(argv))
            .collect();
        for turn in commands.chunks(8) {
            if !history.transaction(turn)? {
                break;
            }
        }
        return Ok(());
    }
    let depth = if let Way::Piped(depth) = plan.way {
        depth
    } else {
        8
    };
    let mut commands = commands.peekable();
    loop {
        let turn = next_turn(&mut commands, depth, history.queueing);
        if turn.is_empty() || !history.turn(&turn)? {
            return Ok(());
        }
    }
}

fn goes_on() -> bool {
    std::env::var_os("COMPAT_GO_ON").is_some()
}

fn is_traced() -> bool {
    std::env::var_os("COMPAT_TRACE").is_some()
}

thread_local! {
    /// How many commands this test has compared.
    static COMMANDS: Cell<u64> = const { Cell::new(0) };
}

/// Runs `check` on generated histories, of which there are `cases`, or one of so many of `PROPTEST_CASES`; says how many
/// commands were compared.
fn run(cases: u32, one_of: u32, check: impl Fn(&[u64], Plan) -> Result<(), TestCaseError>) {
    let number = |name| std::env::var(name).ok().and_then(|n| n.parse().ok());
    let config = Config {
        cases: number("PROPTEST_CASES").map_or(cases, |n: u64| (n as u32 / one_of).max(1)),
        rng_algorithm: RngAlgorithm::ChaCha,
        rng_seed: RngSeed::Fixed(number("COMPAT_SEED").unwrap_or(20_240_607)),
        failure_persistence: None,
        max_shrink_iters: 2000,
        ..Config::default()
    };
    let history = prop::collection::vec(any::<u64>(), 1..HISTORY);
    let plan = (
        prop_oneof![Just("2"), Just("3")],
        any::<usize>(),
        prop_oneof![
            Just(Way::Piped(1)),
            Just(Way::Piped(32)),
            Just(Way::Scripts),
            Just(Way::Multi)
        ],
        any::<bool>(),
    )
        .prop_map(|(resp, theme, way, small)| Plan {
            resp,
            theme,
            way,
            small,
        });
    let result = TestRunner::new(config).run(&(history, plan), |(seeds, plan)| {
        check(&seeds, plan).or_else(|e| match e {
            TestCaseError::Fail(reason) if goes_on() => {
                eprintln!("{reason}\n");
                Ok(())
            }
            e => Err(e),
        })
    });
    println!("{} commands compared", COMMANDS.get());
    if let Err(e) = result {
        panic!("{e}");
    }
}

#[test]
fn the_same_replies_as_the_real_servers() {
    let Some(jury) = Jury::start() else {
        return;
    };
    let grammar = Grammar::read("grammar.txt");
    run(100, 1, |seeds, plan| {
        compare_history(&grammar, &jury, &plan, seeds)
    });
    jury.report();
}
