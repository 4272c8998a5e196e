//! Reads a trace of the event loop, in JSON, and checks it: the fields of each event, names for all
//! threads, arrows in pairs, and that spans nest.

#![allow(dead_code)] // each test binary uses only a part

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value};

/// The number of the server's process in a trace, and that of its thread with the event loop.
const SERVER: u64 = 1;
const LOOP: u64 = 1;

/// A span of time in nanoseconds.
#[derive(Clone, Debug)]
pub struct Span {
    pub name: String,
    pub category: String,
    pub start: u64,
    pub end: u64,
    pub process: u64,
    pub thread: u64,
    pub args: Map<String, Value>,
    /// The index, in [`Trace::spans`], of the span in which this span lies.
    pub parent: Option<usize>,
}

impl Span {
    pub fn is_in_loop(&self) -> bool {
        (self.process, self.thread) == (SERVER, LOOP)
    }

    /// Whether the span is shorter than the clock's resolution.
    fn is_empty(&self) -> bool {
        self.start == self.end
    }

    pub fn number(&self, name: &str) -> u64 {
        self.args[name].as_u64().expect("a number")
    }
}

/// A trace that was read and found correct.
pub struct Trace {
    pub spans: Vec<Span>,
    /// The start and end of each arrow from a request to its reply, in nanoseconds.
    pub arrows: Vec<(u64, u64)>,
    pub facts: BTreeMap<String, String>,
}

impl Trace {
    /// Reads a trace. Panics with the reason if the text is not a correct trace.
    pub fn read(text: &[u8]) -> Trace {
        let json: Value = serde_json::from_slice(text).expect("JSON");
        let top = json.as_object().expect("an object");
        let keys: Vec<&str> = top.keys().map(String::as_str).collect();
        assert_eq!(keys, ["displayTimeUnit", "otherData", "traceEvents"]);
        let facts = json["otherData"].as_object().expect("facts");
        let facts = facts
            .iter()
            .map(|(name, value)| (name.clone(), value.as_str().expect("text").to_string()))
            .collect();
        let events = json["traceEvents"].as_array().expect("events");
        let mut trace = Trace {
            spans: Vec::new(),
            arrows: Vec::new(),
            facts,
        };
        let mut named = BTreeSet::new();
        let mut starts = BTreeMap::new();
        for event in events {
            let event = event.as_object().expect("an object");
            match event["ph"].as_str().expect("a phase") {
                "X" => trace.spans.push(span(event)),
                "M" => _ = named.insert(metadata(event)),
                "s" => _ = starts.insert(arrow_end(event), time(event, "ts")),
                "f" => {
                    assert_eq!(event["bp"], "e", "the arrow ends at the span around it");
                    let start = starts.remove(&arrow_end(event)).expect("its start");
                    trace.arrows.push((start, time(event, "ts")));
                }
                other => panic!("an event of phase {other}"),
            }
        }
        assert!(starts.is_empty(), "each arrow has an end");
        assert!(trace.arrows.iter().all(|(start, end)| start <= end));
        for span in &trace.spans {
            let thread = (span.process, span.thread);
            assert!(
                named.contains(&thread),
                "no name for the thread of {span:?}"
            );
        }
        trace.nest();
        trace
    }

    /// Finds the parent of each span of the event loop, and checks that spans nest and that the
    /// durations of children add up to no more than that of their parent.
    fn nest(&mut self) {
        // A span of no length between two spans may belong to either, so its parent is not looked
        // for.
        let mut order: Vec<usize> = (0..self.spans.len())
            .filter(|&at| self.spans[at].is_in_loop() && !self.spans[at].is_empty())
            .collect();
        order.sort_by_key(|&at| (self.spans[at].start, std::cmp::Reverse(self.spans[at].end)));
        let (mut open, mut sums) = (Vec::new(), BTreeMap::new());
        for at in order {
            let (start, end) = (self.spans[at].start, self.spans[at].end);
            while open
                .last()
                .is_some_and(|&top: &usize| self.spans[top].end <= start)
            {
                open.pop();
            }
            if let Some(&top) = open.last() {
                let around = &self.spans[top];
                assert!(end <= around.end, "{:?} leaves {around:?}", self.spans[at]);
                *sums.entry(top).or_insert(0) += end - start;
                self.spans[at].parent = Some(top);
            }
            open.push(at);
        }
        for (at, sum) in sums {
            let span = &self.spans[at];
            assert!(sum <= span.end - span.start, "children of {span:?}: {sum}");
        }
        let placed = |span: &&Span| span.is_in_loop() && !span.is_empty();
        for span in self.spans.iter().filter(placed) {
            let around = span.parent.map(|at| self.spans[at].category.as_str());
            assert!(may_be_in(&span.category, around), "{span:?} in {around:?}");
        }
    }

    pub fn of<'a>(&'a self, category: &'a str) -> impl Iterator<Item = &'a Span> {
        self.spans
            .iter()
            .filter(move |span| span.category == category)
    }

    pub fn categories(&self) -> BTreeSet<String> {
        let all = self.spans.iter();
        all.map(|span| span.category.clone()).collect()
    }
}

/// Whether a span of the event loop with this category may lie in a span of the category `around`.
fn may_be_in(category: &str, around: Option<&str>) -> bool {
    let Some(around) = around else {
        return category == "turn";
    };
    match category {
        "turn" => false,
        "before_sleep" | "after_sleep" => around == "turn",
        "poll" | "readable" | "writable" => matches!(around, "turn" | "nested turn"),
        "timer" => around == "turn",
        "step" => around == "before_sleep",
        "job" => around == "timer",
        "read" | "parse" => matches!(around, "readable" | "step"),
        "reply build" => around == "command",
        "write" => matches!(around, "step" | "writable" | "command"),
        "handshake" => matches!(around, "readable" | "writable"),
        "bus read" => around == "readable",
        // A reply to a packet of the cluster bus is sent at once, in the span that reads the
        // packet.
        "bus write" => matches!(
            around,
            "readable" | "writable" | "bus read" | "step" | "timer" | "job" | "command"
        ),
        "nested turn" | "command" | "aof flush" | "expire" | "rehash" | "evict" | "fork"
        | "child end" | "blocking fsync" => true,
        other => panic!("an unknown category: {other}"),
    }
}

fn fields(event: &Map<String, Value>, wanted: &[&str]) {
    let mut names: Vec<&str> = event.keys().map(String::as_str).collect();
    let mut wanted = wanted.to_vec();
    names.sort_unstable();
    wanted.sort_unstable();
    assert_eq!(names, wanted, "{event:?}");
}

/// A time of the trace format, which is in microseconds with three decimals, in nanoseconds.
fn time(event: &Map<String, Value>, name: &str) -> u64 {
    let us = event[name].as_f64().expect("a number");
    assert!(us >= 0.0 && us.is_finite(), "{event:?}");
    (us * 1000.0).round() as u64
}

fn thread(event: &Map<String, Value>) -> (u64, u64) {
    let number = |name: &str| event[name].as_u64().expect("a number");
    (number("pid"), number("tid"))
}

fn span(event: &Map<String, Value>) -> Span {
    fields(
        event,
        &["name", "cat", "ph", "ts", "dur", "pid", "tid", "args"],
    );
    let text = |name: &str| event[name].as_str().expect("text").to_string();
    let (process, thread) = thread(event);
    let start = time(event, "ts");
    Span {
        name: text("name"),
        category: text("cat"),
        start,
        end: start + time(event, "dur"),
        process,
        thread,
        args: event["args"].as_object().expect("arguments").clone(),
        parent: None,
    }
}

/// The process and thread to which a metadata event gives a name.
fn metadata(event: &Map<String, Value>) -> (u64, u64) {
    fields(event, &["name", "ph", "pid", "tid", "args"]);
    let what = event["name"].as_str().expect("text");
    assert!(["process_name", "thread_name"].contains(&what), "{event:?}");
    assert!(event["args"]["name"].is_string(), "{event:?}");
    thread(event)
}

fn arrow_end(event: &Map<String, Value>) -> u64 {
    let mut wanted = vec!["name", "cat", "ph", "id", "ts", "pid", "tid"];
    if event["ph"] == "f" {
        wanted.push("bp");
    }
    fields(event, &wanted);
    assert_eq!(thread(event), (SERVER, LOOP));
    event["id"].as_u64().expect("a number")
}
