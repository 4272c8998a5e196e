//! One history of commands on all servers: sent pipelined, in transactions or by scripts; each
//! reply is judged.

use super::common::{Conn, multibulk, parse_reply, split_replies};
use super::exceptions::{excused, is_shared, on_purpose, same, stays_small};
use super::grammar::{Compare, Grammar, generate};
use super::jury::{Judge, Jury, only_judge};
use super::{COMMANDS, goes_on, is_traced, show};
use proptest::prelude::*;
use std::iter::Peekable;

/// How the commands of a history are sent to the servers.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Way {
    /// Pipelined: this number of commands is sent before the first reply is read.
    Piped(usize),
    /// Each command runs by `redis.pcall` in a script.
    Scripts,
    /// Several commands at a time run in a transaction.
    Multi,
}

/// The parameters of all histories of a run.
#[derive(Clone, Debug)]
pub struct Plan {
    pub resp: &'static str,
    pub theme: usize,
    pub way: Way,
    /// Whether the thresholds of encodings are small, so that few elements are enough for the next
    /// encoding.
    pub small: bool,
}

/// The settings of encodings: (name, default, small value).
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

/// Resets a server to its state at the start, except for the thresholds, of which Redis 7.0 lacks
/// some. `None` if the server has crashed, as Redis 8.2.3 does in some calls of FUNCTION FLUSH.
pub fn prepare(conn: &mut Conn, plan: &Plan) -> Option<()> {
    // Valkey looks for blocked clients whose timeout is over in its cron, so a high hz ends them
    // soon.
    assert_eq!(conn.try_line("CONFIG SET hz 500")?, "+OK\r\n");
    for &(name, default, small) in THRESHOLDS {
        let value = if plan.small { small } else { default };
        let set = conn.try_line(&format!("CONFIG SET {name} {value}"))?;
        let unknown = set.starts_with("-ERR Unknown option");
        assert!(unknown || set == "+OK\r\n", "{name}: {set}");
    }
    for user in parse_reply(&conn.cmd(&["ACL", "USERS"])).texts() {
        if user != b"default" {
            conn.cmd(&[&b"ACL"[..], b"DELUSER", &user]);
        }
    }
    for reset in ["FLUSHALL", "SCRIPT FLUSH", "FUNCTION FLUSH"] {
        conn.try_line(reset)?;
    }
    conn.try_line(&format!("HELLO {}", plan.resp))?;
    Some(())
}

pub type Command = (Compare, Vec<Vec<u8>>);

/// Whether a command is the last of those that are sent together: after MULTI, AUTH or HELLO, the
/// next commands depend on the reply; see also [`is_odd_in_multi`].
fn stands_alone(argv: &[Vec<u8>]) -> bool {
    ["MULTI", "AUTH", "HELLO"]
        .iter()
        .any(|name| argv[0].eq_ignore_ascii_case(name.as_bytes()))
}

/// The next commands of a history, at most `depth`, which are sent together.
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
        // EXEC's reply is compared byte for byte, so nothing in it may be unordered.
        let alike = compare == Compare::Bytes && !is_odd_in_multi(&argv) && !on_purpose(&argv);
        if !queueing || alike {
            queueing &= !ends_multi(&argv);
            turn.push((compare, argv));
        }
    }
    turn
}

/// Valkey 8.0 loses the error of an AUTH if another reply waits to be sent, as in EXEC. Commands
/// that only one server can judge are not compared as a part of EXEC's reply.
pub fn is_odd_in_multi(argv: &[Vec<u8>]) -> bool {
    argv[0].eq_ignore_ascii_case(b"AUTH") || only_judge(argv).is_some()
}

fn ends_multi(argv: &[Vec<u8>]) -> bool {
    ["EXEC", "DISCARD", "RESET"]
        .iter()
        .any(|name| argv[0].eq_ignore_ascii_case(name.as_bytes()))
}

/// A server of a history: aeris, or a judge (a real server).
struct Seat<'a> {
    judge: Option<&'a Judge>,
    conn: Conn,
}

/// One history on all servers, starting from an empty data set.
pub struct History<'a> {
    jury: &'a Jury,
    plan: &'a Plan,
    /// aeris first, then the judges that are still in the history.
    seats: Vec<Seat<'a>>,
    sent: Vec<String>,
    queueing: bool,
}

impl<'a> History<'a> {
    fn new(jury: &'a Jury, plan: &'a Plan) -> History<'a> {
        let ours = std::iter::once((None, jury.aeris.connect()));
        // A judge that is about to end, after a crash, does not listen any more.
        let theirs = jury.judges.iter();
        let theirs = theirs.filter_map(|judge| Some((Some(judge), judge.peer.try_connect()?)));
        let seats = ours.chain(theirs).filter_map(|(judge, mut conn)| {
            let ready = prepare(&mut conn, plan).is_some();
            assert!(
                ready || judge.is_some(),
                "our server has closed the connection"
            );
            ready.then_some(Seat { judge, conn })
        });
        History {
            jury,
            plan,
            seats: seats.collect(),
            sent: Vec::new(),
            queueing: false,
        }
    }

    /// Sends the requests to all servers before the first reply is read, so that they work at the
    /// same time. A judge that crashes is removed.
    fn ask(&mut self, requests: &[u8], count: usize) -> Vec<Vec<Vec<u8>>> {
        if is_traced() {
            eprintln!("{}", requests.escape_ascii());
        }
        for seat in &mut self.seats {
            seat.conn.try_send(requests);
        }
        let mut replies = Vec::new();
        self.seats.retain_mut(|seat| {
            let of_seat: Option<Vec<_>> = (0..count).map(|_| seat.conn.try_reply()).collect();
            assert!(
                of_seat.is_some() || seat.judge.is_some(),
                "our server has closed the connection"
            );
            let stays = of_seat.is_some();
            replies.extend(of_seat);
            stays
        });
        replies
    }

    /// Judges the replies to one command; judges that have left the history are ignored.
    fn judge(
        &mut self,
        (compare, argv): &Command,
        replies: &[&[u8]],
        left: &mut [bool],
    ) -> Result<(), TestCaseError> {
        let ours = replies[0];
        let compare = match (compare, self.plan.way) {
            // In Lua a set or a map is a table without an order.
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
        self.sent.push(show(argv));
        COMMANDS.set(COMMANDS.get() + 1);
    }

    /// Removes the judges that have left the history; returns false if none stays.
    fn retain(&mut self, left: &[bool]) -> bool {
        let mut left = left.iter();
        self.seats
            .retain(|_| !left.next().copied().unwrap_or_default());
        self.seats.len() > 1
    }

    /// Sends commands together, by scripts if the plan requires it, and judges each reply.
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

    /// Sends commands in one transaction; each element of EXEC's reply is judged separately.
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

/// The elements of an array as bytes; none for other replies.
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

/// A script that runs the command, in the protocol version of the history.
fn in_script(argv: &[Vec<u8>], resp: &str) -> Vec<u8> {
    let script = format!("redis.setresp({resp}) return redis.pcall(unpack(ARGV))");
    let mut wrapped = vec![b"EVAL".to_vec(), script.into_bytes(), b"0".to_vec()];
    wrapped.extend_from_slice(argv);
    multibulk(&wrapped)
}

pub fn compare_history(
    grammar: &Grammar,
    jury: &Jury,
    plan: &Plan,
    seeds: &[u64],
) -> Result<(), TestCaseError> {
    let mut history = History::new(jury, plan);
    let commands = seeds
        .iter()
        .map(|&seed| generate(grammar, plan.theme, seed))
        .filter(|(_, argv)| jury.can_judge(argv));
    if plan.way == Way::Multi {
        let commands: Vec<Command> = commands
            .filter(|(_, argv)| !ends_multi(argv) && !stands_alone(argv) && !on_purpose(argv))
            // OBJECT REFCOUNT of Redis counts the queued argument of a transaction, too.
            .filter(|(_, argv)| !argv[0].eq_ignore_ascii_case(b"OBJECT"))
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
