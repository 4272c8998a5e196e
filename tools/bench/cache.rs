//! The load of a cache: reads of keys by Zipf's law, and after each miss a write of the value.
//!
//! ```text
//!   4 of 5 requests   GET key   ── found ────────────────────────> the next request
//!                               └─ missing ─> SET key value ─────> the next request
//!   1 of 5 requests   SET key value
//! ```
//!
//! A value has 100 to 10,000 bytes, and both orders of magnitude are equally frequent; its size
//! depends on its key alone, so that all servers are sent the same values. A connection sends one
//! request at a time. The result has the share of reads that found a value.
//!
//! The random ranks are those of Gray et al., "Quickly Generating Billion-Record Synthetic
//! Databases" (1994), as in YCSB.

use std::io::{self, Read};
use std::time::{Duration, Instant};

use mio::{Events, Interest, Poll, Token};

use super::{DIGITS, Random, RunOptions, broken, send, tls::Stream, write_digits};

/// The exponent of Zipf's law, as in YCSB.
const THETA: f64 = 0.99;
const VALUE_MIN: f64 = 100.0;
const VALUE_MAX: f64 = 10_000.0;
/// Apart from misses, a request is a SET with the probability 1 / `WRITE_EVERY`.
const WRITE_EVERY: u64 = 5;

/// Random ranks from 0 on, by Zipf's law.
struct Zipf {
    ranks: f64,
    zeta: f64,
    eta: f64,
}

impl Zipf {
    fn new(ranks: u64) -> Zipf {
        let zeta = |n: u64| (1..=n).map(|rank| (rank as f64).powf(-THETA)).sum::<f64>();
        let (all, n) = (zeta(ranks), ranks as f64);
        Zipf {
            ranks: n,
            zeta: all,
            eta: (1.0 - (2.0 / n).powf(1.0 - THETA)) / (1.0 - zeta(2.min(ranks)) / all),
        }
    }

    /// The rank for a random number `u` from 0 to 1.
    fn rank(&self, u: f64) -> u64 {
        let share = u * self.zeta;
        if share < 1.0 {
            return 0;
        }
        if share < 1.0 + 0.5f64.powf(THETA) {
            return 1;
        }
        let rank = self.ranks * (self.eta * u - self.eta + 1.0).powf(1.0 / (1.0 - THETA));
        (rank as u64).min(self.ranks as u64 - 1)
    }
}

/// The number of bytes of a key's value, which depends on the key alone.
fn value_len(key: u64) -> usize {
    let mixed = (key + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    let u = (mixed ^ mixed >> 29) as u32 as f64 / f64::from(u32::MAX);
    (VALUE_MIN * (VALUE_MAX / VALUE_MIN).powf(u)) as usize
}

/// The request for whose reply a connection waits.
#[derive(Clone, Copy, PartialEq, Debug)]
enum Sent {
    Nothing,
    Get(u64),
    Set,
}

struct Connection {
    stream: Stream,
    request: Vec<u8>,
    /// The number of written bytes of the request.
    written: usize,
    sent: Sent,
    began: Instant,
    /// The bytes of the first line of the reply, until the line is complete.
    line: Vec<u8>,
    /// The number of bytes of a value and its line end that have not arrived.
    skip: usize,
    is_in_value: bool,
}

/// A complete reply to GET or SET.
#[derive(PartialEq, Debug)]
enum Reply {
    Value,
    Missing,
    Stored,
    Error(String),
}

impl Connection {
    fn new(stream: Stream) -> Connection {
        Connection {
            stream,
            request: Vec::new(),
            written: 0,
            sent: Sent::Nothing,
            began: Instant::now(),
            line: Vec::new(),
            skip: 0,
            is_in_value: false,
        }
    }

    /// Takes a part of a reply; returns the reply when it is complete.
    fn consume(&mut self, mut bytes: &[u8]) -> io::Result<Option<Reply>> {
        if !self.is_in_value {
            let Some(end) = bytes.iter().position(|&b| b == b'\n') else {
                self.line.extend_from_slice(bytes);
                return Ok(None);
            };
            self.line.extend_from_slice(&bytes[..end]);
            bytes = &bytes[end + 1..];
            let line = std::mem::take(&mut self.line);
            let text = String::from_utf8_lossy(&line);
            match (text.as_bytes().first(), text.get(1..).map(str::trim)) {
                (Some(b'+'), _) => return done(bytes, Reply::Stored),
                (Some(b'-'), rest) => {
                    return done(bytes, Reply::Error(rest.unwrap_or("").to_string()));
                }
                (Some(b'$'), Some("-1")) => return done(bytes, Reply::Missing),
                (Some(b'$'), Some(len)) => {
                    self.skip = len.parse::<usize>().map_err(|_| broken(&line))? + 2;
                    self.is_in_value = true;
                }
                _ => return Err(broken(&line)),
            }
        }
        let step = self.skip.min(bytes.len());
        self.skip -= step;
        if self.skip > 0 {
            return Ok(None);
        }
        self.is_in_value = false;
        done(&bytes[step..], Reply::Value)
    }

    fn write(&mut self) -> io::Result<()> {
        send(&mut self.stream, &self.request, &mut self.written)
    }
}

/// Returns the reply, or an error if more bytes follow it: a connection has one request at a time.
fn done(rest: &[u8], reply: Reply) -> io::Result<Option<Reply>> {
    match rest {
        [] => Ok(Some(reply)),
        rest => Err(broken(rest)),
    }
}

/// The counts and latencies of a run of the cache load.
#[derive(Default)]
struct Counts {
    requests: u64,
    reads: u64,
    hits: u64,
    errors: u64,
    first_error: String,
    latencies_ns: Vec<u32>,
}

impl Counts {
    /// The result of the run as one line of JSON.
    fn summary(&mut self, elapsed: Duration) -> String {
        self.latencies_ns.sort_unstable();
        let percentile = |per_mille: usize| {
            let last = self.latencies_ns.len().saturating_sub(1);
            let ns = self.latencies_ns.get(last * per_mille / 1000);
            f64::from(ns.copied().unwrap_or(0)) / 1000.0
        };
        format!(
            "{{\"requests\": {}, \"seconds\": {:.6}, \"reads\": {}, \"hits\": {}, \"p50_us\": {:.1}, \
             \"p99_us\": {:.1}, \"p999_us\": {:.1}, \"errors\": {}, \"first_error\": \"{}\"}}",
            self.requests,
            elapsed.as_secs_f64(),
            self.reads,
            self.hits,
            percentile(500),
            percentile(990),
            percentile(999),
            self.errors,
            self.first_error
                .escape_default()
                .to_string()
                .replace("\\'", "'"),
        )
    }
}

/// The load of a cache: its connections, its random keys, and its counts.
pub struct Cache {
    options: RunOptions,
    zipf: Zipf,
    random: Random,
    connections: Vec<Connection>,
    counts: Counts,
    /// The number of requests that were started.
    issued: u64,
    /// The bytes of which each value is a part.
    text: Vec<u8>,
}

impl Cache {
    /// Opens the connections to the server.
    pub fn connect(options: RunOptions, poll: &Poll) -> io::Result<Cache> {
        let mut connections = Vec::with_capacity(options.clients);
        for i in 0..options.clients {
            let mut stream = Stream::connect(options.address, None)?;
            while !stream.handshake()? {
                std::thread::sleep(Duration::from_micros(200));
            }
            let both = Interest::READABLE | Interest::WRITABLE;
            poll.registry().register(&mut stream, Token(i), both)?;
            connections.push(Connection::new(stream));
        }
        let mut random = Random(options.seed | 1 << 63);
        Ok(Cache {
            zipf: Zipf::new(options.keyspace),
            text: (0..VALUE_MAX as usize)
                .map(|_| b'a' + random.below(26) as u8)
                .collect(),
            random,
            connections,
            counts: Counts::default(),
            issued: 0,
            options,
        })
    }

    /// Sends a connection's next request: SET of the key `missing`, or a request for a random key.
    /// Returns false if there are no more requests.
    fn next(&mut self, i: usize, missing: Option<u64>) -> io::Result<bool> {
        if self.issued == self.options.requests {
            return Ok(false);
        }
        self.issued += 1;
        let key = missing.unwrap_or_else(|| {
            let u = self.random.below(1 << 53) as f64 / (1u64 << 53) as f64;
            self.zipf.rank(u)
        });
        let writes = missing.is_some() || self.random.below(WRITE_EVERY) == 0;
        let c = &mut self.connections[i];
        c.request.clear();
        let verb: &[u8] = match writes {
            true => b"*3\r\n$3\r\nSET\r\n$16\r\nkey:",
            false => b"*2\r\n$3\r\nGET\r\n$16\r\nkey:",
        };
        c.request.extend_from_slice(verb);
        let at = c.request.len();
        c.request.resize(at + DIGITS, 0);
        write_digits(&mut c.request[at..], key);
        c.request.extend_from_slice(b"\r\n");
        if writes {
            let len = value_len(key);
            c.request
                .extend_from_slice(format!("${len}\r\n").as_bytes());
            c.request.extend_from_slice(&self.text[..len]);
            c.request.extend_from_slice(b"\r\n");
        }
        c.sent = if writes { Sent::Set } else { Sent::Get(key) };
        (c.written, c.began) = (0, Instant::now());
        c.write()?;
        Ok(true)
    }

    /// Counts a reply; returns the key if its value was missing.
    fn count(&mut self, i: usize, reply: Reply, now: Instant) -> io::Result<Option<u64>> {
        let c = &mut self.connections[i];
        let counts = &mut self.counts;
        counts.requests += 1;
        if counts.latencies_ns.len() < 8_000_000 {
            let ns = (now - c.began).as_nanos().min(u32::MAX.into());
            counts.latencies_ns.push(ns as u32);
        }
        match (std::mem::replace(&mut c.sent, Sent::Nothing), reply) {
            (Sent::Get(_), Reply::Value) => {
                counts.reads += 1;
                counts.hits += 1;
            }
            (Sent::Get(key), Reply::Missing) => {
                counts.reads += 1;
                return Ok(Some(key));
            }
            (Sent::Set, Reply::Stored) => {}
            (_, Reply::Error(text)) => {
                counts.errors += 1;
                if counts.first_error.is_empty() {
                    counts.first_error = text;
                }
            }
            (sent, reply) => return Err(io::Error::other(format!("{reply:?} after {sent:?}"))),
        }
        Ok(None)
    }

    /// Reads until the socket is empty or the reply is complete; returns the complete reply.
    fn read(&mut self, i: usize, scratch: &mut [u8]) -> io::Result<Option<Reply>> {
        let c = &mut self.connections[i];
        loop {
            let got = match c.stream.read(scratch) {
                Ok(0) => return Err(io::Error::other("the server closed a connection")),
                Ok(n) => n,
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(None),
                Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                Err(e) => return Err(e),
            };
            if let Some(reply) = c.consume(&scratch[..got])? {
                return Ok(Some(reply));
            }
        }
    }

    /// Sends requests until the time or the number of requests is reached; the result is a line of
    /// JSON.
    pub fn run(&mut self, poll: &mut Poll) -> io::Result<String> {
        let (mut events, mut scratch) = (Events::with_capacity(1024), vec![0; 64 * 1024]);
        let start = Instant::now();
        let end = start + Duration::from_secs_f64(self.options.seconds);
        let mut active = 0;
        for i in 0..self.connections.len() {
            active += usize::from(self.next(i, None)?);
        }
        while active > 0 {
            poll.poll(&mut events, Some(Duration::from_secs(30)))?;
            if events.is_empty() {
                return Err(io::Error::other("no reply for 30 s"));
            }
            for event in &events {
                let i = event.token().0;
                if event.is_writable() {
                    self.connections[i].write()?;
                }
                if !event.is_readable() || self.connections[i].sent == Sent::Nothing {
                    continue;
                }
                let Some(reply) = self.read(i, &mut scratch)? else {
                    continue;
                };
                let now = Instant::now();
                let missing = self.count(i, reply, now)?;
                if now >= end || !self.next(i, missing)? {
                    active -= 1;
                }
            }
        }
        Ok(self.counts.summary(start.elapsed()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranks_follow_zipfs_law() {
        let (zipf, mut random) = (Zipf::new(1000), Random(1 << 63 | 3));
        let mut seen = [0u32; 1000];
        for _ in 0..1_000_000 {
            let u = random.below(1 << 53) as f64 / (1u64 << 53) as f64;
            seen[zipf.rank(u) as usize] += 1;
        }
        let expected = |rank: usize| 1e6 / zipf.zeta * (rank as f64 + 1.0).powf(-THETA);
        for rank in [0, 1, 9, 99] {
            let ratio = f64::from(seen[rank]) / expected(rank);
            assert!((0.8..1.2).contains(&ratio), "rank {rank}: {ratio}");
        }
        assert!(seen[999] > 0);
        assert_eq!((zipf.rank(0.0), zipf.rank(1.0 - f64::EPSILON)), (0, 999));
    }

    #[test]
    fn each_order_of_magnitude_of_sizes_is_as_frequent() {
        let sizes: Vec<usize> = (0..100_000).map(value_len).collect();
        assert!(sizes.iter().all(|len| (100..=10_000).contains(len)));
        let small = sizes.iter().filter(|len| **len < 1000).count();
        assert!((48_000..52_000).contains(&small), "{small}");
    }

    #[test]
    fn a_reply_is_read_at_any_split() {
        let cases: [(&[u8], Reply); 5] = [
            (b"$3\r\na\nb\r\n", Reply::Value),
            (b"$0\r\n\r\n", Reply::Value),
            (b"$-1\r\n", Reply::Missing),
            (b"+OK\r\n", Reply::Stored),
            (b"-ERR no\r\n", Reply::Error("ERR no".into())),
        ];
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let mut c = Connection::new(Stream::connect(address, None).unwrap());
        for (bytes, reply) in cases {
            for split in 0..bytes.len() {
                assert_eq!(
                    c.consume(&bytes[..split]).unwrap(),
                    None,
                    "split at {split}"
                );
                assert_eq!(c.consume(&bytes[split..]).unwrap().as_ref(), Some(&reply));
            }
            let more = [bytes, b"+"].concat();
            assert!(c.consume(&more).is_err());
        }
        assert!(c.consume(b":1\r\n").is_err());
    }
}
