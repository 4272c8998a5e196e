//! A load generator for RESP servers: many connections, one thread, a fixed pipeline depth.
//!
//! redis-benchmark is not used: at a pipeline depth of 64 it needs more CPU for a request than a
//! good server does, so the server waits and gets small batches, and a faster server has a worse
//! result. In this load generator a request costs a few nanoseconds: each connection keeps its
//! batch of requests as bytes, and only the digits of its random keys are replaced before it is
//! sent again.
//!
//! ```text
//! bench-load --port 6379 --pipeline 64 --seconds 2 SET key:{key} 0123456789abcdef
//!
//!   batch   *3\r\n$3\r\nSET\r\n$16\r\nkey:000000482913\r\n$16\r\n0123...\r\n *3\r\n...   (64 times)
//!                                     ^^^^^^^^^^^^ a slot: 12 digits, rewritten in place
//! ```
//!
//! In an argument `{key}` stands for a random number below `--keyspace`, a new one at each place,
//! and `{seq}` for a counter that is the same at each place of one request. The number of a key and
//! of a counter have 12 digits. An argument `;` ends a command: `MULTI ; INCR a ; EXEC` is one
//! request with three replies.
//!
//! With `--wait` the program prints `ready` when it is connected and starts when a line arrives on
//! standard input, so that the caller can read the server's CPU time just before and just after.
//! With `--until-eof` the load ends when standard input ends, so that the caller determines the
//! duration. The result is one line of JSON. The load is a closed loop: a connection sends its next
//! batch when the last reply of the previous batch has arrived.
//!
//! With `--listen` each connection sends the command once and then reads everything, until the
//! process is ended: for subscribers of a load that publishes.
//!
//! With `--tls` the connections speak TLS and trust every server. With `--handshakes N` in place of
//! a command nothing is sent: N connections are opened, as many as `--clients` at a time, and each
//! is closed after its handshake.
//!
//! With `--cache` in place of a command the program sends the load of a cache, see `cache.rs`.
//!
//! **Invariant:** a batch is complete when a reply to each of its requests has arrived, with all
//! its nested elements (`nested_frames_are_counted`).

use std::io::{self, BufRead, Read, Write};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use mio::{Events, Interest, Poll, Token};

mod cache;
mod tls;

use tls::Stream;

/// The number of digits of a random key or a counter.
const DIGITS: usize = 12;
const USAGE: &str = "usage: bench-load --port N [--host ADDR] [--clients N] [--pipeline N] \
[--requests N] [--seconds S] [--keyspace N] [--seed N] [--tls] [--wait [--until-eof] | --listen] COMMAND [ARG ...] [; COMMAND ...] | --handshakes N | --cache";

struct RunOptions {
    address: SocketAddr,
    clients: usize,
    pipeline: usize,
    requests: u64,
    seconds: f64,
    keyspace: u64,
    seed: u64,
    wait: bool,
    until_eof: bool,
    listen: bool,
    tls: bool,
    /// The number of handshakes that are made in place of requests.
    handshakes: u64,
    /// Whether the load of a cache is sent in place of a command.
    cache: bool,
    /// The commands of one request, with their arguments.
    commands: Vec<Vec<String>>,
}

impl RunOptions {
    fn parse(mut args: impl Iterator<Item = String>) -> Result<RunOptions, String> {
        let (mut host, mut port) = ("127.0.0.1".to_string(), 6379u16);
        let mut o = RunOptions {
            address: SocketAddr::from(([127, 0, 0, 1], 6379)),
            clients: 50,
            pipeline: 1,
            requests: u64::MAX,
            seconds: 3600.0,
            keyspace: 1_000_000,
            seed: 1,
            wait: false,
            until_eof: false,
            listen: false,
            tls: false,
            handshakes: 0,
            cache: false,
            commands: Vec::new(),
        };
        while let Some(name) = args.next() {
            match name.as_str() {
                "--host" => host = value(&name, args.next())?,
                "--port" => port = value(&name, args.next())?,
                "--clients" => o.clients = value(&name, args.next())?,
                "--pipeline" => o.pipeline = value(&name, args.next())?,
                "--requests" => o.requests = value(&name, args.next())?,
                "--seconds" => o.seconds = value(&name, args.next())?,
                "--keyspace" => o.keyspace = value(&name, args.next())?,
                "--seed" => o.seed = value(&name, args.next())?,
                "--wait" => o.wait = true,
                "--until-eof" => o.until_eof = true,
                "--listen" => o.listen = true,
                "--tls" => o.tls = true,
                "--cache" => o.cache = true,
                "--handshakes" => o.handshakes = value(&name, args.next())?,
                _ => {
                    let words: Vec<String> = std::iter::once(name).chain(args.by_ref()).collect();
                    o.commands = words.split(|word| word == ";").map(<[_]>::to_vec).collect();
                }
            }
        }
        let ip = host
            .parse()
            .map_err(|_| format!("not an address: {host}"))?;
        o.address = SocketAddr::new(ip, port);
        let counts = o.clients > 0 && o.pipeline > 0 && o.keyspace > 0;
        let time = o.seconds > 0.0 && o.seconds < 86_400.0;
        let asks = match o.handshakes {
            0 if o.cache => {
                let alone = o.commands.is_empty() && !o.listen && !o.until_eof && !o.tls;
                alone && o.pipeline == 1
            }
            0 => !o.commands.is_empty() && o.commands.iter().all(|words| !words.is_empty()),
            _ => o.commands.is_empty() && !o.listen && !o.until_eof && !o.cache,
        };
        if !(counts && time && asks) || (o.wait && o.listen) || (o.until_eof && !o.wait) {
            return Err(USAGE.to_string());
        }
        Ok(o)
    }
}

fn value<T: std::str::FromStr>(name: &str, text: Option<String>) -> Result<T, String> {
    let text = text.ok_or_else(|| format!("{name} wants a value"))?;
    text.parse()
        .map_err(|_| format!("{name}: not understood: {text}"))
}

#[derive(Clone, Copy, PartialEq)]
enum Slot {
    Key(usize),
    Seq(usize),
}

/// A request as bytes, the positions of its keys and counters, and its number of replies.
struct Template {
    bytes: Vec<u8>,
    slots: Vec<Slot>,
    replies: u64,
}

impl Template {
    fn new(commands: &[Vec<String>]) -> Template {
        let mut t = Template {
            bytes: Vec::new(),
            slots: Vec::new(),
            replies: commands.len() as u64,
        };
        for command in commands {
            t.bytes.extend(format!("*{}\r\n", command.len()).as_bytes());
            for arg in command {
                let width = |name: &str| arg.matches(name).count() * (DIGITS - name.len());
                let len = arg.len() + width("{key}") + width("{seq}");
                t.bytes.extend(format!("${len}\r\n").as_bytes());
                t.push_argument(arg);
                t.bytes.extend(b"\r\n");
            }
        }
        t
    }

    fn push_argument(&mut self, arg: &str) {
        let mut rest = arg;
        while let Some(c) = rest.chars().next() {
            let at = self.bytes.len();
            let slot = match rest.get(..5) {
                Some("{key}") => Slot::Key(at),
                Some("{seq}") => Slot::Seq(at),
                _ => {
                    self.bytes.extend(c.to_string().as_bytes());
                    rest = &rest[c.len_utf8()..];
                    continue;
                }
            };
            self.slots.push(slot);
            self.bytes.extend([b'0'; DIGITS]);
            rest = &rest[5..];
        }
    }
}

/// A random generator (xorshift64*): random enough for keys, at the cost of a nanosecond.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        let high = u128::from(self.0.wrapping_mul(0x2545_F491_4F6C_DD1D)) * u128::from(limit);
        (high >> 64) as u64
    }
}

fn write_digits(place: &mut [u8], mut n: u64) {
    for digit in place.iter_mut().rev() {
        *digit = b'0' + (n % 10) as u8;
        n /= 10;
    }
}

/// The source of the random keys and the counter in requests.
struct Numbers {
    random: Random,
    keyspace: u64,
    next_seq: u64,
}

/// Counts replies and their elements without storing them.
#[derive(Default)]
struct Replies {
    /// The number of replies of the batch that have not arrived, with the elements of arrays that
    /// have begun.
    open: u64,
    /// The number of bytes of a bulk string and its line end that have not arrived.
    skip: usize,
    errors: u64,
    first_error: Option<String>,
}

impl Replies {
    /// Skips the complete lines and values in `bytes`; returns the number of skipped bytes.
    fn consume(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut at = 0;
        loop {
            let step = self.skip.min(bytes.len() - at);
            self.skip -= step;
            at += step;
            let Some(len) = bytes[at..].iter().position(|&b| b == b'\n') else {
                return Ok(at);
            };
            self.frame(&bytes[at..at + len])?;
            at += len + 1;
        }
    }

    fn frame(&mut self, line: &[u8]) -> io::Result<()> {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        let (&kind, rest) = line.split_first().ok_or_else(|| broken(line))?;
        let count = || -> io::Result<Option<usize>> {
            let text = std::str::from_utf8(rest).map_err(|_| broken(line))?;
            let n: i64 = text.parse().map_err(|_| broken(line))?;
            Ok(usize::try_from(n).ok())
        };
        if self.open == 0 {
            return Err(broken(line)); // more replies than requests
        }
        self.open -= 1;
        match kind {
            b'$' | b'=' => self.skip = count()?.map_or(0, |n| n + 2),
            b'*' | b'~' | b'>' => self.open += count()?.unwrap_or(0) as u64,
            b'%' => self.open += 2 * count()?.unwrap_or(0) as u64,
            b'-' => {
                self.errors += 1;
                let text = || String::from_utf8_lossy(rest).into_owned();
                self.first_error.get_or_insert_with(text);
            }
            b'+' | b':' | b'_' | b',' | b'#' | b'(' => {}
            _ => return Err(broken(line)),
        }
        Ok(())
    }
}

fn broken(line: &[u8]) -> io::Error {
    let shown = String::from_utf8_lossy(&line[..line.len().min(60)]).into_owned();
    io::Error::new(
        io::ErrorKind::InvalidData,
        format!("not a reply that was due: {shown:?}"),
    )
}

struct Connection {
    stream: Stream,
    batch: Vec<u8>,
    /// The number of written bytes of the batch; the whole batch while replies are awaited.
    sent: usize,
    /// The first bytes of a line of a reply whose end has not arrived.
    partial: Vec<u8>,
    began: Instant,
    open: u64,
    skip: usize,
}

impl Connection {
    fn idle(&self) -> bool {
        self.open == 0 && self.skip == 0
    }
}

struct Load {
    options: RunOptions,
    template: Template,
    numbers: Numbers,
    connections: Vec<Connection>,
    replies: Replies,
    scratch: Vec<u8>,
    /// The number of requests that were sent; `done` is the number of those with a reply.
    issued: u64,
    done: u64,
    latencies_us: Vec<u32>,
}

impl Load {
    fn connect(options: RunOptions, poll: &Poll) -> io::Result<Load> {
        let template = Template::new(&options.commands);
        let batch = template.bytes.repeat(options.pipeline);
        let mut connections = Vec::with_capacity(options.clients);
        let config = match options.tls {
            true => Some(tls::config().map_err(io::Error::other)?),
            false => None,
        };
        for i in 0..options.clients {
            let mut stream = Stream::connect(options.address, config.as_ref())?;
            while !stream.handshake()? {
                std::thread::sleep(Duration::from_micros(200));
            }
            poll.registry().register(
                &mut stream,
                Token(i),
                Interest::READABLE | Interest::WRITABLE,
            )?;
            connections.push(Connection {
                stream,
                sent: batch.len(),
                batch: batch.clone(),
                partial: Vec::new(),
                began: Instant::now(),
                open: 0,
                skip: 0,
            });
        }
        Ok(Load {
            numbers: Numbers {
                random: Random(options.seed | 1 << 63),
                keyspace: options.keyspace,
                next_seq: 0,
            },
            template,
            connections,
            replies: Replies::default(),
            scratch: vec![0; 256 * 1024],
            issued: 0,
            done: 0,
            latencies_us: Vec::new(),
            options,
        })
    }

    /// Writes new keys and counters into a connection's batch and sends the batch; returns false if
    /// there are no more requests.
    fn start_batch(&mut self, i: usize) -> io::Result<bool> {
        let n = (self.options.requests - self.issued).min(self.options.pipeline as u64);
        if n == 0 {
            return Ok(false);
        }
        self.issued += n;
        let c = &mut self.connections[i];
        let len = self.template.bytes.len();
        c.batch.truncate(len * n as usize); // the last batch may be shorter
        for request in c.batch.chunks_exact_mut(len) {
            for slot in &self.template.slots {
                let (at, number) = match *slot {
                    Slot::Key(at) => (at, self.numbers.random.below(self.numbers.keyspace)),
                    Slot::Seq(at) => (at, self.numbers.next_seq),
                };
                write_digits(&mut request[at..at + DIGITS], number);
            }
            self.numbers.next_seq += 1;
        }
        (c.sent, c.began) = (0, Instant::now());
        c.open = n * self.template.replies;
        flush(c)?;
        Ok(true)
    }

    /// Reads until the socket is empty; returns true if the batch's last reply has arrived.
    fn read_replies(&mut self, i: usize) -> io::Result<bool> {
        let c = &mut self.connections[i];
        (self.replies.open, self.replies.skip) = (c.open, c.skip);
        loop {
            let kept = c.partial.len();
            self.scratch[..kept].copy_from_slice(&c.partial);
            let got = match c.stream.read(&mut self.scratch[kept..]) {
                Ok(0) => return Err(io::Error::other("the server closed a connection")),
                Ok(n) => kept + n,
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => break,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                Err(e) => return Err(e),
            };
            let used = self.replies.consume(&self.scratch[..got])?;
            if got - used > 4096 {
                return Err(broken(&self.scratch[used..got]));
            }
            c.partial.clear();
            c.partial.extend_from_slice(&self.scratch[used..got]);
            if got < self.scratch.len() && !c.stream.is_tls() {
                break; // after a short read the socket is empty; the next bytes raise an event
            }
        }
        (c.open, c.skip) = (self.replies.open, self.replies.skip);
        Ok(c.idle())
    }

    /// Sends batches until the time or the number of requests is reached, or `over` is set.
    fn run(&mut self, poll: &mut Poll, over: &AtomicBool) -> io::Result<Duration> {
        let mut events = Events::with_capacity(1024);
        let start = Instant::now();
        let end = start + Duration::from_secs_f64(self.options.seconds);
        let mut active = 0;
        for i in 0..self.connections.len() {
            active += usize::from(self.start_batch(i)?);
        }
        while active > 0 {
            poll.poll(&mut events, Some(Duration::from_secs(30)))?;
            if events.is_empty() {
                return Err(io::Error::other("no reply for 30 s"));
            }
            for event in &events {
                let i = event.token().0;
                if event.is_writable() {
                    flush(&mut self.connections[i])?;
                }
                if self.connections[i].idle() || !event.is_readable() || !self.read_replies(i)? {
                    continue;
                }
                let c = &self.connections[i];
                let now = Instant::now();
                self.done += (c.batch.len() / self.template.bytes.len()) as u64;
                if self.latencies_us.len() < 4_000_000 {
                    self.latencies_us
                        .push((now - c.began).as_micros().min(u32::MAX.into()) as u32);
                }
                let enough = now >= end || over.load(Ordering::Relaxed);
                if enough || !self.start_batch(i)? {
                    active -= 1;
                }
            }
        }
        Ok(start.elapsed())
    }

    /// Sends the command on each connection, prints `ready` after the first replies, and reads
    /// until the process ends.
    fn listen(&mut self, poll: &mut Poll) -> io::Result<()> {
        let mut events = Events::with_capacity(1024);
        for i in 0..self.connections.len() {
            self.start_batch(i)?;
        }
        let mut silent: std::collections::HashSet<usize> = (0..self.connections.len()).collect();
        loop {
            poll.poll(&mut events, None)?;
            for event in events.iter().filter(|event| event.is_readable()) {
                let i = event.token().0;
                if self.drain(i)? && silent.remove(&i) && silent.is_empty() {
                    println!("ready");
                }
            }
        }
    }

    /// Reads and drops the input of a connection; returns whether any bytes were there.
    fn drain(&mut self, i: usize) -> io::Result<bool> {
        let mut any = false;
        loop {
            match self.connections[i].stream.read(&mut self.scratch) {
                Ok(0) => return Err(io::Error::other("the server closed a connection")),
                Ok(n) if n < self.scratch.len() && !self.connections[i].stream.is_tls() => {
                    return Ok(true);
                }
                Ok(_) => any = true,
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(any),
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
    }

    /// The result of the run as one line of JSON.
    fn summary(&mut self, elapsed: Duration) -> String {
        self.latencies_us.sort_unstable();
        let percentile = |p: usize| {
            let last = self.latencies_us.len().saturating_sub(1);
            self.latencies_us.get(last * p / 100).copied().unwrap_or(0)
        };
        let error = self.replies.first_error.as_deref().unwrap_or("");
        format!(
            "{{\"requests\": {}, \"seconds\": {:.6}, \"p50_us\": {}, \"p99_us\": {}, \
             \"errors\": {}, \"first_error\": \"{}\"}}",
            self.done,
            elapsed.as_secs_f64(),
            percentile(50),
            percentile(99),
            self.replies.errors,
            error.escape_default().to_string().replace("\\'", "'"),
        )
    }
}

fn flush(c: &mut Connection) -> io::Result<()> {
    send(&mut c.stream, &c.batch, &mut c.sent)
}

/// Writes the bytes from the index `sent` on, as many as the socket accepts.
fn send(stream: &mut tls::Stream, bytes: &[u8], sent: &mut usize) -> io::Result<()> {
    stream.push()?;
    while *sent < bytes.len() {
        match stream.write(&bytes[*sent..]) {
            Ok(n) => *sent += n,
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => break,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(())
}

fn run(options: RunOptions) -> io::Result<String> {
    if options.handshakes > 0 {
        if options.wait {
            println!("ready");
            io::stdin().lock().read_line(&mut String::new())?;
        }
        let elapsed = tls::storm(options.address, options.handshakes, options.clients)?;
        return Ok(format!(
            "{{\"requests\": {}, \"seconds\": {:.6}, \"errors\": 0, \"first_error\": \"\"}}",
            options.handshakes,
            elapsed.as_secs_f64()
        ));
    }
    let mut poll = Poll::new()?;
    let (wait, until_eof, listen) = (options.wait, options.until_eof, options.listen);
    if options.cache {
        let mut cache = cache::Cache::connect(options, &poll)?;
        if wait {
            println!("ready");
            io::stdin().lock().read_line(&mut String::new())?;
        }
        return cache.run(&mut poll);
    }
    let mut load = Load::connect(options, &poll)?;
    if listen {
        load.listen(&mut poll)?;
    }
    let over = Arc::new(AtomicBool::new(false));
    if wait {
        println!("ready");
        io::stdin().lock().read_line(&mut String::new())?;
    }
    if until_eof {
        let over = over.clone();
        std::thread::spawn(move || {
            // An error on standard input counts as its end.
            let _ = io::copy(&mut io::stdin(), &mut io::sink());
            over.store(true, Ordering::Relaxed);
        });
    }
    let elapsed = load.run(&mut poll, &over)?;
    Ok(load.summary(elapsed))
}

fn main() {
    let options = RunOptions::parse(std::env::args().skip(1)).unwrap_or_else(|e| {
        eprintln!("{e}");
        std::process::exit(2);
    });
    match run(options) {
        Ok(line) => println!("{line}"),
        Err(e) => {
            eprintln!("bench-load: {e}");
            std::process::exit(1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(line: &str) -> Result<RunOptions, String> {
        RunOptions::parse(line.split(' ').map(str::to_string))
    }

    fn template(line: &str) -> Template {
        Template::new(&options(line).unwrap().commands)
    }

    #[test]
    fn a_request_may_be_several_commands() {
        let t = template("MULTI ; INCR cnt:{key} ; EXEC");
        assert_eq!(
            t.bytes,
            b"*1\r\n$5\r\nMULTI\r\n*2\r\n$4\r\nINCR\r\n$16\r\ncnt:000000000000\r\n*1\r\n$4\r\nEXEC\r\n"
        );
        assert_eq!(t.replies, 3);
        assert!(options("MULTI ; ; EXEC").is_err());
        assert!(options("--wait --listen SUBSCRIBE a").is_err());
        assert!(options("--until-eof PING").is_err());
        assert!(options("--handshakes 5").is_ok());
        assert!(options("--handshakes 5 PING").is_err());
        assert!(options("--cache --keyspace 1000").is_ok());
        assert!(options("--cache PING").is_err());
        assert!(options("--cache --pipeline 2").is_err());
        assert!(options("--cache --handshakes 5").is_err());
    }

    #[test]
    fn template_has_a_slot_for_each_number() {
        let t = template("SET key:{key} {seq}");
        assert_eq!(
            t.bytes,
            b"*3\r\n$3\r\nSET\r\n$16\r\nkey:000000000000\r\n$12\r\n000000000000\r\n"
        );
        assert!(t.slots == [Slot::Key(22), Slot::Seq(41)]);
    }

    #[test]
    fn nested_frames_are_counted() {
        let stream = b"*2\r\n$3\r\nabc\r\n*1\r\n:1\r\n+OK\r\n$-1\r\n-ERR no\r\n*-1\r\n";
        for split in 0..stream.len() {
            let mut r = Replies {
                open: 5,
                ..Replies::default()
            };
            let used = r.consume(&stream[..split]).unwrap();
            r.consume(&stream[used..]).unwrap();
            assert_eq!((r.open, r.skip, r.errors), (0, 0, 1), "split at {split}");
            assert_eq!(r.first_error.as_deref(), Some("ERR no"));
        }
    }

    #[test]
    fn a_reply_too_many_is_an_error() {
        let mut r = Replies {
            open: 1,
            ..Replies::default()
        };
        assert!(r.consume(b"+OK\r\n+OK\r\n").is_err());
    }

    #[test]
    fn random_numbers_stay_below_the_limit_and_spread() {
        let mut random = Random(1 << 63 | 7);
        let mut seen = [0u32; 10];
        for _ in 0..10_000 {
            seen[random.below(10) as usize] += 1;
        }
        assert!(seen.iter().all(|&n| n > 800), "{seen:?}");
    }
}
