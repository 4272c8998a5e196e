//! The trace as JSON in Chrome's trace event format, which Perfetto and chrome://tracing open.
//!
//! ```text
//!   process 1  aeris-server                        process 2  clients
//!     thread 1  event loop    all spans, nested      thread ID  client ID     a request: from its read to its reply
//!     thread 2  AOF writer    writes, fsyncs
//!     thread 3  lazy free                          an arrow from a client's read to the write of its reply,
//!     thread 4  child         from fork to its end both on the loop's thread
//! ```
//!
//! Spans are events of type `X`, names of type `M`; an arrow is a pair of types `s` and `f`. Times
//! are microseconds since the first event, with three decimals. Events are sorted by their start;
//! of two events with the same start, the event that contains the other one stands first. The
//! format is that of "Trace Event Format" (Google, 2016).

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt::Write;

use crate::VERSION;
use crate::observe::trace::Snapshot;
use crate::observe::trace::event::{Event, EventKind};

/// The numbers by which the trace viewer distinguishes processes and threads.
const SERVER: u64 = 1;
const CLIENTS: u64 = 2;
const LOOP: u64 = 1;
const AOF_THREAD: u64 = 2;
const LAZY_FREE_THREAD: u64 = 3;
const CHILD: u64 = 4;

/// The requests of a client since its last reply, which the viewer shows as one span.
struct Request {
    start: u64,
    /// The start of the arrow to the reply: a time within a span of the event loop's thread.
    from: u64,
    /// The id of the first command of the requests; the next field is the number of their commands.
    command: Option<u32>,
    commands: u64,
    /// The end of the last command. A command that begins before this time belongs to the last
    /// command, a script or a transaction.
    ended: u64,
}

struct Writer<'a> {
    out: String,
    snapshot: &'a Snapshot,
    origin: u64,
    first: bool,
}

/// Converts the snapshot of a trace to the text of a JSON file. `reason` states why the file is
/// written.
pub fn to_json(snapshot: &Snapshot, reason: &str) -> String {
    let mut events = snapshot.events.clone();
    events.sort_by_key(|e| (e.start, std::cmp::Reverse(e.end), e.kind));
    let origin = events.first().map_or(snapshot.made_at, |e| e.start);
    let mut writer = Writer {
        out: String::with_capacity(1024 + events.len() * 160),
        snapshot,
        origin,
        first: true,
    };
    writer.head(reason, events.len());
    writer.thread_names(&events);
    for event in &events {
        writer.span(event);
    }
    writer.requests(&events);
    writer.children(&events);
    writer.out.push_str("\n]}\n");
    writer.out
}

fn thread_of(kind: EventKind) -> u64 {
    match kind {
        EventKind::AofWrite | EventKind::Fsync => AOF_THREAD,
        EventKind::LazyFree => LAZY_FREE_THREAD,
        _ => LOOP,
    }
}

impl Writer<'_> {
    fn head(&mut self, reason: &str, events: usize) {
        let since = self.snapshot.made_at.saturating_sub(self.origin);
        let began_us = self.snapshot.made_unix_us - self.snapshot.clock.to_us(since) as i64;
        self.out
            .push_str("{\"displayTimeUnit\":\"ns\",\"otherData\":{");
        for (name, value) in [
            ("server", format!("aeris {VERSION}")),
            ("reason", reason.to_string()),
            ("began-unix-us", began_us.to_string()),
            ("events", events.to_string()),
            ("overwritten", self.snapshot.lost.to_string()),
            ("slower-than-us", self.snapshot.slower_than_us.to_string()),
        ] {
            string(&mut self.out, name);
            self.out.push(':');
            string(&mut self.out, &value);
            self.out.push(',');
        }
        self.out.pop();
        self.out.push_str("},\"traceEvents\":[");
    }

    fn thread_names(&mut self, events: &[Event]) {
        self.name("process_name", SERVER, 0, "aeris-server");
        self.name("process_name", CLIENTS, 0, "clients");
        let used: BTreeSet<u64> = events.iter().map(|e| thread_of(e.kind)).collect();
        let forked = events.iter().any(|e| e.kind == EventKind::Fork);
        for (thread, name, shown) in [
            (LOOP, "event loop", true),
            (AOF_THREAD, "AOF writer", used.contains(&AOF_THREAD)),
            (
                LAZY_FREE_THREAD,
                "lazy free",
                used.contains(&LAZY_FREE_THREAD),
            ),
            (CHILD, "child", forked),
        ] {
            if shown {
                self.name("thread_name", SERVER, thread, name);
            }
        }
        let clients: BTreeSet<u64> = events.iter().map(|e| e.client).collect();
        for client in clients.into_iter().filter(|&client| client != 0) {
            self.name("thread_name", CLIENTS, client, &format!("client {client}"));
        }
    }

    /// Adds a metadata event, which names a process or a thread.
    fn name(&mut self, what: &str, process: u64, thread: u64, name: &str) {
        self.begin(what, "M", process, thread);
        self.out.push_str(",\"args\":{\"name\":");
        string(&mut self.out, name);
        self.out.push_str("}}");
    }

    /// Begins an event of the file with the fields that all events have: name, type, process,
    /// thread.
    fn begin(&mut self, name: &str, phase: &str, process: u64, thread: u64) {
        self.out.push_str(if self.first { "\n" } else { ",\n" });
        self.first = false;
        self.out.push_str("{\"name\":");
        string(&mut self.out, name);
        put(
            &mut self.out,
            format_args!(",\"ph\":\"{phase}\",\"pid\":{process},\"tid\":{thread}"),
        );
    }

    fn ns(&self, at: u64) -> u64 {
        self.snapshot.clock.to_ns(at.saturating_sub(self.origin))
    }

    fn times(&mut self, category: &str, start: u64, end: u64) {
        let (start, end) = (self.ns(start), self.ns(end));
        let took = end.saturating_sub(start);
        put(
            &mut self.out,
            format_args!(
                ",\"cat\":\"{category}\",\"ts\":{}.{:03},\"dur\":{}.{:03}",
                start / 1000,
                start % 1000,
                took / 1000,
                took % 1000
            ),
        );
    }

    fn span(&mut self, event: &Event) {
        let snapshot = self.snapshot;
        let name = name_of(snapshot, event);
        self.begin(name, "X", SERVER, thread_of(event.kind));
        self.times(event.kind.name(), event.start, event.end);
        self.out.push_str(",\"args\":{");
        if event.client != 0 {
            put(&mut self.out, format_args!("\"client\":{},", event.client));
        }
        if let Some(argument) = event.kind.argument() {
            put(
                &mut self.out,
                format_args!("\"{argument}\":{},", event.number),
            );
        }
        if self.out.ends_with(',') {
            self.out.pop();
        }
        self.out.push_str("}}");
    }

    /// For each reply, adds a span to the client's thread, and an arrow from the request to the
    /// reply.
    fn requests(&mut self, events: &[Event]) {
        let mut open: HashMap<u64, Request> = HashMap::new();
        let mut arrow = 0;
        for event in events.iter().filter(|e| e.client != 0) {
            match event.kind {
                EventKind::Read | EventKind::Command => {
                    let request = open.entry(event.client).or_insert(Request {
                        start: event.start,
                        from: event.start,
                        command: None,
                        commands: 0,
                        ended: 0,
                    });
                    if event.kind == EventKind::Command && event.start >= request.ended {
                        request.command.get_or_insert(event.number);
                        request.commands += 1;
                        request.ended = event.end;
                    }
                }
                EventKind::Write => {
                    if let Some(request) = open.remove(&event.client) {
                        arrow += 1;
                        self.request(&request, event, arrow);
                    }
                }
                _ => {}
            }
        }
    }

    fn request(&mut self, request: &Request, reply: &Event, arrow: u64) {
        let names = &self.snapshot.names.commands;
        let first = request.command.and_then(|id| names.get(id as usize));
        let first = first.map_or("request", |name| name);
        let name = match request.commands {
            0 | 1 => first.to_string(),
            n => format!("{first} and {} more", n - 1),
        };
        self.begin(&name, "X", CLIENTS, reply.client);
        self.times("request", request.start, reply.end);
        put(
            &mut self.out,
            format_args!(",\"args\":{{\"commands\":{}}}}}", request.commands),
        );
        for (phase, at, more) in [("s", request.from, ""), ("f", reply.start, ",\"bp\":\"e\"")] {
            self.begin("reply", phase, SERVER, LOOP);
            let ns = self.ns(at);
            put(
                &mut self.out,
                format_args!(
                    ",\"cat\":\"reply\",\"id\":{arrow},\"ts\":{}.{:03}{more}}}",
                    ns / 1000,
                    ns % 1000
                ),
            );
        }
    }

    /// Adds a span for each child process, from its fork to its end, or to the end of the trace.
    fn children(&mut self, events: &[Event]) {
        let mut running: BTreeMap<u32, u64> = BTreeMap::new();
        let mut last = self.origin;
        for event in events {
            last = last.max(event.end);
            match event.kind {
                EventKind::Fork => {
                    running.insert(event.number, event.start);
                }
                EventKind::ChildEnd => {
                    if let Some(start) = running.remove(&event.number) {
                        self.child(event.number, start, event.start);
                    }
                }
                _ => {}
            }
        }
        for (pid, start) in running {
            self.child(pid, start, last);
        }
    }

    fn child(&mut self, pid: u32, start: u64, end: u64) {
        self.begin(&format!("child {pid}"), "X", SERVER, CHILD);
        self.times("child", start, end);
        self.out.push_str(",\"args\":{}}");
    }
}

/// The name of an event: the name of its command, step of `before_sleep` or cron job, otherwise of
/// its kind.
fn name_of<'a>(snapshot: &'a Snapshot, event: &Event) -> &'a str {
    let (names, at) = (&snapshot.names, event.number as usize);
    let own = match event.kind {
        EventKind::Command => names.commands.get(at).map(|name| &**name),
        EventKind::Step => names.steps.get(at).copied(),
        EventKind::Job => names.jobs.get(at).copied(),
        _ => None,
    };
    own.unwrap_or(event.kind.name())
}

/// Appends `text` as a JSON string. Escaping is needed, since a renamed command may have any name.
fn string(out: &mut String, text: &str) {
    out.push('"');
    for c in text.chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            c if c < ' ' => put(out, format_args!("\\u{:04x}", c as u32)),
            c => out.push(c),
        }
    }
    out.push('"');
}

fn put(out: &mut String, text: std::fmt::Arguments) {
    // Writing to a String can't fail.
    let _ = out.write_fmt(text);
}
