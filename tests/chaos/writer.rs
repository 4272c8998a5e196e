//! Clients that write numbered items, and the checks of these items afterwards.
//!
//! Each command, transaction and script appends one item to the list of its client. An item that
//! was acknowledged must be in the list exactly once, in order. In a transaction and in a script,
//! two counters change by opposite amounts, so their sum is always 0.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU16, Ordering};
use std::time::{Duration, Instant};

use crate::common::{Conn, Reply, multibulk, parse_reply};

/// The server to which clients write, and whether they continue.
#[derive(Default)]
pub struct Target {
    pub port: AtomicU16,
    pub stop: AtomicBool,
}

/// An item that a client has sent, to be appended to its list.
pub struct Item {
    pub text: String,
    /// The port of the server to which the item was sent.
    port: u16,
    /// The time at which the item was acknowledged; `None` if no reply came.
    acked: Option<Instant>,
}

/// The items that one client has sent since its list was last emptied.
pub struct Writer {
    pub id: usize,
    epoch: u32,
    next: u64,
    items: Vec<Item>,
    /// For each server, by port: the number of items that a replica had according to WAIT.
    waited: HashMap<u16, usize>,
}

/// The items of one client that are lost when all servers have the same data again.
#[derive(Default, Clone, Copy)]
pub struct Lost {
    pub items: usize,
    /// The time between the first acknowledgement of a lost item and the last.
    pub window: Duration,
}

const SCRIPT: &str = "redis.call('incrby', KEYS[1], ARGV[1]) redis.call('decrby', KEYS[2], ARGV[1]) \
                      return redis.call('rpush', KEYS[3], ARGV[2])";

/// The name of a key of a client: its list, or one of its two counters.
pub fn key(kind: &str, id: usize) -> String {
    format!("{kind}:{id}")
}

/// Connects, with a time limit for replies, so that a client does not wait for ever.
fn connect(port: u16) -> Option<Conn> {
    Conn::try_new(port, Duration::from_secs(8))
}

impl Writer {
    pub fn new(id: usize) -> Writer {
        Writer {
            id,
            epoch: 0,
            next: 0,
            items: Vec::new(),
            waited: HashMap::new(),
        }
    }

    /// Begins an epoch of the test, at which the client's list is empty.
    pub fn begin(&mut self, epoch: u32) {
        self.epoch = epoch;
        self.items.clear();
        self.waited.clear();
    }

    /// Sends items until `target.stop` is set.
    pub fn run(&mut self, target: &Target) {
        let mut conn = None;
        while !target.stop.load(Ordering::SeqCst) {
            let port = target.port.load(Ordering::SeqCst);
            let open = conn.take().filter(|&(of, _)| of == port);
            let open = open.or_else(|| Some((port, connect(port)?)));
            let Some((_, mut c)) = open else {
                std::thread::sleep(Duration::from_millis(5));
                continue;
            };
            if self.write(port, &mut c) {
                conn = Some((port, c));
            }
            std::thread::sleep(Duration::from_micros(700));
        }
    }

    /// Sends one item. Returns whether the connection is usable.
    fn write(&mut self, port: u16, c: &mut Conn) -> bool {
        self.next += 1;
        let n = self.next;
        let text = format!("{}:{n}", self.epoch);
        let list = key("list", self.id);
        let (a, b) = (key("a", self.id), key("b", self.id));
        let amount = (n % 1000).to_string();
        let commands = match n % 5 {
            0 => vec![
                multibulk(&["MULTI"]),
                multibulk(&["INCRBY", &a, &amount]),
                multibulk(&["RPUSH", &list, &text]),
                multibulk(&["DECRBY", &b, &amount]),
                multibulk(&["EXEC"]),
            ],
            1 => vec![multibulk(&[
                "EVAL", SCRIPT, "3", &a, &b, &list, &amount, &text,
            ])],
            2 => vec![
                multibulk(&["SET", &key("short", self.id), &text, "PX", "15"]),
                multibulk(&["RPUSH", &list, &text]),
            ],
            _ => vec![multibulk(&["RPUSH", &list, &text])],
        };
        c.try_send(&commands.concat());
        let replies = (0..commands.len()).map_while(|_| c.try_reply_in_time());
        let replies: Vec<Vec<u8>> = replies.collect();
        let last = match replies.get(commands.len() - 1) {
            Some(last) => last,
            None => {
                self.note(port, text, false);
                return false;
            }
        };
        if last.starts_with(b"-") {
            let error = String::from_utf8_lossy(last);
            let refused = ["READONLY", "LOADING", "MISCONF", "EXECABORT", "MASTERDOWN"];
            assert!(
                refused.iter().any(|code| error[1..].starts_with(code)),
                "{error}"
            );
            return true;
        }
        self.note(port, text, true);
        if n.is_multiple_of(8) {
            return self.wait(port, c);
        }
        true
    }

    fn note(&mut self, port: u16, text: String, acked: bool) {
        let acked = acked.then(Instant::now);
        self.items.push(Item { text, port, acked });
    }

    /// Sends WAIT. If a replica has the writes, records that it has all items sent so far.
    fn wait(&mut self, port: u16, c: &mut Conn) -> bool {
        c.try_send(&multibulk(&["WAIT", "1", "100"]));
        let reply = c.try_reply_in_time();
        if reply
            .as_ref()
            .is_some_and(|r| r.starts_with(b":") && r != b":0\r\n")
        {
            self.waited.insert(port, self.items.len());
        }
        reply.is_some()
    }

    /// Checks the list of a settled server. `lossy` is the server that was replaced without
    /// coordination: the last items that it acknowledged may be lost, except those that WAIT had
    /// reported.
    pub fn check(&self, c: &mut Conn, lossy: Option<u16>) -> Lost {
        let list = parse_reply(&c.cmd(&["LRANGE", &key("list", self.id), "0", "-1"])).texts();
        let mut found = list
            .iter()
            .map(|text| String::from_utf8_lossy(text))
            .peekable();
        let mut lost: Vec<&Item> = Vec::new();
        for (at, item) in self.items.iter().enumerate() {
            if found.peek().is_some_and(|text| *text == item.text) {
                found.next();
                let after_a_gap = lost.iter().any(|lost| lost.port == item.port);
                assert!(!after_a_gap, "{} is there, an earlier one not", item.text);
                continue;
            }
            if item.acked.is_none() {
                continue;
            }
            assert_eq!(Some(item.port), lossy, "{} is lost", item.text);
            let waited = self.waited.get(&item.port).copied().unwrap_or(0);
            assert!(
                at >= waited,
                "{} is lost, although WAIT reported it",
                item.text
            );
            lost.push(item);
        }
        assert_eq!(
            found.next(),
            None,
            "an item that is gone is there again, or is there twice"
        );
        let time = |item: Option<&&Item>| item.and_then(|item| item.acked);
        let window = match (time(lost.first()), time(lost.last())) {
            (Some(first), Some(last)) => last - first,
            _ => Duration::ZERO,
        };
        Lost {
            items: lost.len(),
            window,
        }
    }

    pub fn acked(&self) -> usize {
        self.items
            .iter()
            .filter(|item| item.acked.is_some())
            .count()
    }
}

/// Reads both counters of a client in one transaction: their sum is 0 at each moment on each
/// server.
pub fn check_sums(port: u16, id: usize) {
    let Some(mut c) = connect(port) else {
        return;
    };
    let (a, b) = (key("a", id), key("b", id));
    let commands = [
        multibulk(&["MULTI"]),
        multibulk(&["GET", &a]),
        multibulk(&["GET", &b]),
        multibulk(&["EXEC"]),
    ];
    c.try_send(&commands.concat());
    let replies: Vec<Vec<u8>> = (0..4).map_while(|_| c.try_reply_in_time()).collect();
    let Some(last) = replies.get(3).filter(|last| last.starts_with(b"*")) else {
        return; // the server is loading, or has ended
    };
    let Reply::Many(_, values) = parse_reply(last) else {
        return;
    };
    let number = |value: &Reply| match value {
        Reply::Bulk(text) => String::from_utf8_lossy(text)
            .parse::<i64>()
            .expect("a number"),
        _ => 0,
    };
    let sum: i64 = values.iter().map(number).sum();
    assert_eq!(sum, 0, "a transaction is torn: {values:?} on port {port}");
}
