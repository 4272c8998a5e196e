//! Several clients at once: the effects of one client's commands on the others are equal on all
//! servers.
//!
//! ```text
//!   sessions.txt: `1 PUBLISH ch v`      for each server   control ----------- which clients are blocked, unblock
//!                  '- the client                          client 0, 1, 2 ---- the commands, messages, wake-ups
//! ```
//!
//! After each command everything that reached any client is compared, byte for byte. No test waits
//! for a fixed time: a client has received everything when the reply to a PING with a marker has
//! arrived, and CLIENT LIST on the control connection, after the turn of the command, shows whether
//! a client is blocked.
//!
//! **Limits.** A client in MULTI gets no PING, which would be queued, nor does a blocked client;
//! what these clients receive is compared later. CLIENT REPLY is not tested here, since the marker
//! would not be sent.

use super::common::{Conn, Peer, multibulk, split_replies};
use super::exceptions::{contains, excused, on_purpose, same};
use super::grammar::{Compare, Grammar, draw, ends_with, generate, may_wait};
use super::history::{Plan, is_odd_in_multi, prepare};
use super::jury::{Jury, Name};
use super::{COMMANDS, run, show};
use proptest::prelude::*;
use rand::SeedableRng;
use rand::rngs::SmallRng;
use std::cell::RefCell;

const CLIENTS: usize = 3;
/// The reason for which a session ends early, for its report.
const OVERWRITTEN: &str =
    "who waits for a key that STORE writes over another is not woken by Redis; ours serves it";
const INVALIDATE: &[u8] = b">2\r\n$10\r\ninvalidate";
const MARKER: &[u8] = b"all-has-come";

/// One server of a session (aeris or a judge), with its clients.
struct Side<'a> {
    /// The judge (a real server); `None` for aeris.
    judge: Option<Name>,
    peer: &'a Peer,
    control: Conn,
    clients: Vec<Client>,
}

struct Client {
    conn: Conn,
    id: String,
}

impl Client {
    fn new(peer: &Peer, resp: &str) -> Client {
        let mut conn = peer.connect();
        let id = conn.line("CLIENT ID");
        conn.line(&format!("HELLO {resp}"));
        let id = id.trim_matches([':', '\r', '\n']).to_string();
        Client { conn, id }
    }

    /// All unread bytes that the client received before the marker, with at least `replies`
    /// replies; `None` if the connection was closed.
    fn drain(&mut self, replies: usize) -> Option<Vec<u8>> {
        let mut out = Vec::new();
        for count in 0.. {
            let reply = self.conn.try_reply()?;
            let refused = reply.starts_with(b"-NOAUTH")
                || reply.starts_with(b"-NOPERM") && reply.ends_with(b"'ping' command\r\n");
            if contains(&reply, MARKER) || refused && count >= replies {
                break;
            }
            out.extend_from_slice(&reply);
        }
        Some(out)
    }
}

/// XREAD with more keys than IDs, which is an error: only aeris tracks the keys that the command
/// would have read.
fn is_unbalanced(argv: &[Vec<u8>]) -> bool {
    let streams = argv
        .iter()
        .position(|arg| arg.eq_ignore_ascii_case(b"STREAMS"));
    streams.is_some_and(|at| (argv.len() - at).is_multiple_of(2))
}

/// Reads the reply to a command of a transaction, with the messages that arrived before it.
fn reply_in_multi(conn: &mut Conn) -> Option<Vec<u8>> {
    let mut out = Vec::new();
    loop {
        let reply = conn.try_reply()?;
        out.extend_from_slice(&reply);
        if !reply.starts_with(b">") {
            return Some(out);
        }
    }
}

impl Side<'_> {
    fn new<'a>(judge: Option<Name>, peer: &'a Peer, plan: &Plan) -> Option<Side<'a>> {
        let mut control = peer.connect();
        prepare(&mut control, plan)?;
        control.line("CONFIG SET notify-keyspace-events KEA");
        control.line("SCRIPT FLUSH");
        let clients = (0..CLIENTS).map(|_| Client::new(peer, plan.resp)).collect();
        Some(Side {
            judge,
            peer,
            control,
            clients,
        })
    }

    /// Waits for the end of a turn: the reply to PING is sent at the end of a turn in which all
    /// earlier commands have run.
    fn end_turn(&mut self) {
        self.control.line("PING");
    }

    fn is_blocked(&mut self, who: usize) -> bool {
        self.end_turn();
        let id = &self.clients[who].id;
        let list = self.control.line(&format!("CLIENT LIST ID {id}"));
        let flags = list.split(" flags=").nth(1).unwrap_or_default();
        flags
            .split(' ')
            .next()
            .is_some_and(|flags| flags.contains('b'))
    }
}

/// The state of a client, which is equal on all servers.
#[derive(Clone, Copy, PartialEq)]
enum State {
    Free,
    Multi,
    Blocked,
}

struct Session<'a> {
    jury: &'a Jury,
    /// aeris first, then the judges that are still in the session.
    sides: Vec<Side<'a>>,
    states: [State; CLIENTS],
    plan: &'a Plan,
    sent: Vec<String>,
    /// The last command that a client has sent.
    argv: Vec<Vec<u8>>,
    /// Whether a client tracks by prefix (BCAST): its invalidations are sent at the end of a turn,
    /// after the replies of that turn.
    broadcasts: bool,
    /// Whether a command with STORE was sent, see [`OVERWRITTEN`].
    stores: bool,
    /// Whether tracking was switched off. Redis keeps the keys that were read before, and sends
    /// invalidations for them when tracking is on again; aeris does not.
    tracking_ended: bool,
}

impl Session<'_> {
    fn fail(&self, who: usize, found: &[Option<Vec<u8>>]) -> TestCaseError {
        let text = |bytes: &Option<Vec<u8>>| match bytes {
            Some(bytes) => bytes.escape_ascii().to_string(),
            None => "closed".into(),
        };
        let reads = std::iter::zip(&self.sides, found).map(|(side, found)| {
            let server = side.judge.map_or("ours".into(), |name| format!("{name:?}"));
            format!("\n{server}\n  {}", text(found))
        });
        let reads: String = reads.collect();
        let sent = self.sent.join("\n  ");
        TestCaseError::fail(format!(
            "{:?}, after\n  {sent}\nclient {who} reads{reads}",
            self.plan
        ))
    }

    /// The replies in the order of arrival, but adjacent messages for patterns are sorted, since
    /// their order is undefined.
    fn in_order(&self, bytes: &[u8]) -> Vec<Vec<u8>> {
        let mut replies = split_replies(bytes);
        if self.tracking_ended {
            replies.retain(|reply| !reply.starts_with(INVALIDATE));
        }
        // The order of an invalidation and a notification of the same change is undefined.
        replies.sort_by_key(|reply| reply.starts_with(INVALIDATE));
        let of_pattern = |reply: &Vec<u8>| contains(&reply[..reply.len().min(20)], b"pmessage");
        replies
            .chunk_by_mut(|a, b| of_pattern(a) && of_pattern(b))
            .for_each(|run| run.sort());
        replies
    }

    fn agree(&self, compare: Compare, ours: &Option<Vec<u8>>, theirs: &Option<Vec<u8>>) -> bool {
        match (ours, theirs) {
            // Messages before or after an unordered reply are compared, too.
            (Some(ours), Some(theirs)) => {
                let (ours, theirs) = (self.in_order(ours), self.in_order(theirs));
                ours.len() == theirs.len()
                    && std::iter::zip(&ours, &theirs)
                        .all(|(ours, theirs)| same(compare, ours, theirs))
            }
            (ours, theirs) => ours == theirs,
        }
    }

    /// Compares the results of all servers, the result of aeris first. A judge with a different
    /// result leaves the session.
    fn check(
        &mut self,
        who: usize,
        compare: Compare,
        found: &[Option<Vec<u8>>],
    ) -> Result<(), TestCaseError> {
        let text = |of: usize| found[of].as_deref().unwrap_or_default();
        let mut opinions = Vec::new();
        let mut stays = vec![true];
        for (at, theirs) in found.iter().enumerate().skip(1) {
            let judge = self.sides[at].judge.expect("a judge's side");
            let agrees = self.agree(compare, &found[0], theirs);
            if agrees || !excused(&self.argv, text(0), text(at)) {
                opinions.push((judge, agrees));
            }
            if !agrees {
                self.jury.note(judge, &self.argv, text(0), text(at));
            }
            let errors = text(0).starts_with(b"-") && text(at).starts_with(b"-");
            stays.push(agrees || errors);
        }
        if !self.jury.is_right(&self.argv, &opinions) {
            return Err(self.fail(who, found));
        }
        let mut stays = stays.into_iter();
        self.sides.retain(|_| stays.next().unwrap_or(true));
        if self.sides.len() < 2 {
            return Err(TestCaseError::reject("no judge is in step"));
        }
        Ok(())
    }

    /// Sends a PING with the marker to a client: everything that was sent to the client arrives
    /// before its reply.
    fn mark(&mut self, who: usize) {
        let ping = multibulk(&[&b"PING"[..], MARKER]);
        for side in &mut self.sides {
            side.clients[who].conn.try_send(&ping);
        }
    }

    /// Compares the bytes that a client received before the marker; a closed client is replaced.
    fn drain(&mut self, who: usize, replies: usize, compare: Compare) -> Result<(), TestCaseError> {
        let found: Vec<_> = self
            .sides
            .iter_mut()
            .map(|side| side.clients[who].drain(replies))
            .collect();
        self.check(who, compare, &found)?;
        if found[0].is_none() {
            self.tracking_ended = true;
            for side in &mut self.sides {
                side.clients[who] = Client::new(side.peer, self.plan.resp);
            }
        }
        Ok(())
    }

    fn blocked(&mut self, who: usize) -> Result<bool, TestCaseError> {
        let blocked: Vec<bool> = self
            .sides
            .iter_mut()
            .map(|side| side.is_blocked(who))
            .collect();
        if self.stores && !blocked[0] && blocked[1..].contains(&true) {
            return Err(TestCaseError::reject(OVERWRITTEN));
        }
        let text = |blocked: &bool| Some(format!("blocked: {blocked}").into_bytes());
        let found: Vec<_> = blocked.iter().map(text).collect();
        self.check(who, Compare::Bytes, &found)?;
        Ok(blocked[0])
    }

    /// Runs one command of one client, and compares its effects on all clients.
    fn step(
        &mut self,
        who: usize,
        compare: Compare,
        argv: &[Vec<u8>],
    ) -> Result<(), TestCaseError> {
        let request = multibulk(argv);
        self.argv = argv.to_vec();
        for side in &mut self.sides {
            side.clients[who].conn.try_send(&request);
        }
        let is = |name: &str| argv[0].eq_ignore_ascii_case(name.as_bytes());
        let off = |arg: &Vec<u8>| arg.eq_ignore_ascii_case(b"OFF");
        self.stores |= argv.iter().any(|arg| ends_with(arg, b"STORE"));
        self.broadcasts |= argv.iter().any(|arg| arg.eq_ignore_ascii_case(b"BCAST"));
        self.tracking_ended |=
            is("RESET") || is_unbalanced(argv) || is("CLIENT") && argv.iter().any(off);
        let ends = is("EXEC") || is("DISCARD") || is("RESET") || is("QUIT");
        if is("MULTI") || self.states[who] == State::Multi && !ends {
            let found: Vec<_> = self
                .sides
                .iter_mut()
                .map(|side| reply_in_multi(&mut side.clients[who].conn))
                .collect();
            self.check(who, compare, &found)?;
            if found[0].as_deref().is_some_and(|b| b.ends_with(b"+OK\r\n")) {
                self.states[who] = State::Multi;
            } else if self.states[who] == State::Free {
                self.mark(who);
                self.drain(who, 0, compare)?;
            }
        } else if may_wait(argv) && self.blocked(who)? {
            self.states[who] = State::Blocked;
        } else {
            self.states[who] = State::Free;
            if self.broadcasts {
                self.sides.iter_mut().for_each(Side::end_turn);
            }
            self.mark(who);
            self.drain(who, 1, compare)?;
        }
        self.others(who)
    }

    /// Compares the bytes that the other clients received. All get the marker before the first is
    /// read, so that all servers work at the same time.
    fn others(&mut self, who: usize) -> Result<(), TestCaseError> {
        let mut free = Vec::new();
        for other in (0..CLIENTS).filter(|other| *other != who) {
            let was_blocked = self.states[other] == State::Blocked;
            if self.states[other] == State::Multi || was_blocked && self.blocked(other)? {
                continue;
            }
            self.states[other] = State::Free;
            self.mark(other);
            free.push((other, usize::from(was_blocked)));
        }
        for (other, replies) in free {
            self.drain(other, replies, Compare::Bytes)?;
        }
        Ok(())
    }

    /// Unblocks a client with CLIENT UNBLOCK on the control connection.
    fn unblock(&mut self, who: usize, rest: &[Vec<u8>]) -> Result<(), TestCaseError> {
        let found: Vec<_> = self
            .sides
            .iter_mut()
            .map(|side| {
                let mut argv = vec![b"CLIENT".to_vec(), b"UNBLOCK".to_vec()];
                argv.push(side.clients[who].id.clone().into_bytes());
                argv.extend_from_slice(rest);
                Some(side.control.cmd(&argv))
            })
            .collect();
        self.argv = vec![b"CLIENT".to_vec(), b"UNBLOCK".to_vec()];
        self.check(who, Compare::Bytes, &found)?;
        self.others(CLIENTS)
    }
}

fn compare_session(
    grammars: &[Grammar; 2],
    jury: &Jury,
    plan: &Plan,
    seeds: &[u64],
) -> Result<(), TestCaseError> {
    let judges = jury
        .judges
        .iter()
        .map(|judge| (Some(judge.name), &judge.peer));
    let servers = std::iter::once((None, &jury.aeris)).chain(judges);
    let mut session = Session {
        jury,
        sides: servers
            .filter_map(|(judge, peer)| Side::new(judge, peer, plan))
            .collect(),
        states: [State::Free; CLIENTS],
        plan,
        sent: Vec::new(),
        argv: Vec::new(),
        broadcasts: false,
        stores: false,
        tracking_ended: false,
    };
    assert!(
        session.sides[0].judge.is_none(),
        "our server has closed the connection"
    );
    for &seed in seeds {
        let mut rng = SmallRng::seed_from_u64(seed);
        let (mut compare, mut argv) = draw(&grammars[0], plan.theme, &mut rng);
        let who = argv.remove(0);
        if argv
            .first()
            .is_some_and(|word| word.eq_ignore_ascii_case(b"ANYTHING"))
        {
            (compare, argv) = generate(&grammars[1], plan.theme, seed);
            // Blocking commands that end by timeout are not tested. OBJECT is not tested either,
            // since the encoding of a value may differ, see `stays_small`.
            let is_object = argv[0].eq_ignore_ascii_case(b"OBJECT");
            if may_wait(&argv) || is_object || !jury.can_judge(&argv) {
                continue;
            }
        }
        session.sent.push(format!(
            "{} {}",
            show(std::slice::from_ref(&who)),
            show(&argv)
        ));
        if std::env::var_os("COMPAT_TRACE").is_some() {
            eprintln!("{}", session.sent[session.sent.len() - 1]);
        }
        let target = usize::from(who[who.len() - 1] - b'0');
        if who[0] == b'u' {
            session.unblock(target, &argv)?;
        } else if session.states[target] == State::Blocked
            || on_purpose(&argv)
            || session.states[target] == State::Multi
                && (compare != Compare::Bytes || is_odd_in_multi(&argv))
        {
            session.sent.pop();
        } else {
            session.step(target, compare, &argv)?;
            COMMANDS.set(COMMANDS.get() + 1);
        }
    }
    Ok(())
}

#[test]
fn several_clients_see_the_same() {
    let Some(jury) = Jury::start() else {
        return;
    };
    let jury = RefCell::new(jury);
    let grammars = [Grammar::read("sessions.txt"), Grammar::read("grammar.txt")];
    // A command of a session takes as long as ten commands of a history.
    run(30, 4, |seeds, plan| {
        jury.borrow_mut().revive();
        let compared = compare_session(&grammars, &jury.borrow(), &plan, seeds);
        compared.or_else(|e| match e {
            TestCaseError::Reject(_) => Ok(()),
            e => Err(e),
        })
    });
    jury.borrow().report();
}
