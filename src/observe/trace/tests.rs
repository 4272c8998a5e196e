use super::chrome::to_json;
use super::*;

fn trace() -> Trace {
    Trace::new(&["first step", "second step"], vec!["job"])
}

fn kinds(trace: &Trace) -> Vec<EventKind> {
    let session = trace.session.as_ref().expect("a session");
    session.ring.to_vec().iter().map(|e| e.kind).collect()
}

fn whole_turn(trace: &mut Trace) {
    trace.begin_turn(0);
    trace.begin(EventKind::Poll, 0, 0);
    trace.end(1);
    trace.end_turn(0);
}

#[test]
fn a_session_has_whole_turns() {
    let mut trace = trace();
    whole_turn(&mut trace);
    // When TRACE START runs in a handler, the rest of this turn is not recorded.
    trace.begin_turn(0);
    trace.start(10, 0, Ticks::nanoseconds());
    trace.begin(EventKind::Timer, 0, 0);
    trace.end(0);
    trace.end_turn(0);
    assert!(kinds(&trace).is_empty());
    whole_turn(&mut trace);
    assert_eq!(kinds(&trace), [EventKind::Poll, EventKind::Turn]);
    trace.begin_turn(0);
    assert!(trace.stop() && !trace.stop());
    trace.begin(EventKind::Timer, 0, 0);
    trace.end(0);
    trace.end_turn(0);
    assert!(!trace.is_on());
    whole_turn(&mut trace);
    let (poll, turn, timer) = (EventKind::Poll, EventKind::Turn, EventKind::Timer);
    assert_eq!(kinds(&trace), [poll, turn, timer, turn]);
}

#[test]
fn a_turn_that_is_joined_counts_from_there() {
    let mut trace = trace();
    trace.start(10, 0, Ticks::nanoseconds());
    trace.join_turn(5, (0, 0));
    trace.end(0);
    assert!(trace.end_turn(7).is_some());
    assert_eq!(kinds(&trace), [EventKind::BeforeSleep, EventKind::Turn]);
    let session = trace.session.as_ref().expect("a session");
    assert_eq!(session.ring.to_vec()[1].number, 2, "commands of the turn");
}

#[test]
fn an_end_without_a_beginning_is_left_out() {
    let mut trace = trace();
    trace.start(10, 0, Ticks::nanoseconds());
    trace.end(0);
    assert!(trace.end_turn(0).is_none());
    whole_turn(&mut trace);
    assert_eq!(kinds(&trace), [EventKind::Poll, EventKind::Turn]);
}

#[test]
fn turns_within_turns_are_distinguished_and_deep_ones_left_out() {
    let mut trace = trace();
    trace.start(100, 0, Ticks::nanoseconds());
    for _ in 0..DEPTH_MAX + 5 {
        trace.begin_turn(0);
    }
    for _ in 1..DEPTH_MAX + 5 {
        assert!(trace.end_turn(0).is_none());
    }
    assert!(trace.end_turn(0).is_some());
    let kinds = kinds(&trace);
    assert_eq!(kinds.len(), DEPTH_MAX);
    assert_eq!(kinds.iter().filter(|k| **k == EventKind::Turn).count(), 1);
    assert_eq!(kinds.last(), Some(&EventKind::Turn));
}

#[test]
fn a_command_of_a_client_that_was_blocked_begins_within_its_step() {
    let mut trace = trace();
    trace.start(10, 0, Ticks::nanoseconds());
    trace.begin_turn(0);
    let began = ticks::now();
    trace.begin_part(began);
    trace.command(3, began - 1000, began + 10, 7);
    let session = trace.session.as_ref().expect("a session");
    let event = session.ring.to_vec()[0];
    assert_eq!(
        (event.start, event.end, event.number),
        (began, began + 10, 3)
    );
}

#[test]
fn the_recorder_and_the_session_have_filters_of_their_own() {
    let mut trace = trace();
    let clock = Ticks::nanoseconds();
    trace.set_recorder(true, clock);
    trace.start(10, 1, clock);
    trace.begin_turn(0);
    for (start, end) in [(1, 1000), (1000, 2000), (2000, 12_000)] {
        trace.span(EventKind::Poll, start, end, 0, 0);
    }
    let kept = |recording: &Option<Recording>| {
        let ring = &recording.as_ref().expect("a recording").ring;
        ring.to_vec().iter().map(|e| e.start).collect::<Vec<_>>()
    };
    assert_eq!(kept(&trace.session), [1000, 2000]);
    assert_eq!(kept(&trace.recorder), [2000]);
}

#[test]
fn the_file_has_spans_threads_and_arrows() {
    let event = |kind, start, end, client, number| Event {
        start,
        end,
        client,
        number,
        kind,
    };
    let snapshot = Snapshot {
        // Events are listed as they are recorded, by their ends: an event stands before the events
        // that contain it.
        events: vec![
            event(EventKind::Read, 1100, 1200, 7, 24),
            event(EventKind::Command, 1300, 2300, 7, 0),
            event(EventKind::Readable, 1050, 2400, 7, 0),
            event(EventKind::Fsync, 1000, 1999, 0, 0),
            event(EventKind::Write, 2510, 2600, 7, 5),
            event(EventKind::Step, 2500, 2700, 0, 1),
            event(EventKind::Fork, 2700, 2750, 0, 42),
            event(EventKind::Turn, 1000, 3000, 0, 1),
        ],
        lost: 3,
        slower_than_us: 0,
        names: Names {
            commands: vec!["A\"B".into()],
            steps: &["first step", "second step"],
            jobs: Vec::new(),
        },
        clock: Ticks::nanoseconds(),
        made_at: 4000,
        made_unix_us: 1_000_003,
    };
    let text = to_json(&snapshot, "a test");
    let json: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    assert_eq!(json["otherData"]["began-unix-us"], "1000000");
    assert_eq!(json["otherData"]["overwritten"], "3");
    let lines: Vec<&str> = text.lines().collect();
    let spans = [
        r#"{"name":"turn","ph":"X","pid":1,"tid":1,"cat":"turn","ts":0.000,"dur":2.000,"args":{"commands":1}},"#,
        r#"{"name":"fsync","ph":"X","pid":1,"tid":2,"cat":"fsync","ts":0.000,"dur":0.999,"args":{}},"#,
        r#"{"name":"readable","ph":"X","pid":1,"tid":1,"cat":"readable","ts":0.050,"dur":1.350,"args":{"client":7}},"#,
        r#"{"name":"read","ph":"X","pid":1,"tid":1,"cat":"read","ts":0.100,"dur":0.100,"args":{"client":7,"bytes":24}},"#,
        r#"{"name":"A\"B","ph":"X","pid":1,"tid":1,"cat":"command","ts":0.300,"dur":1.000,"args":{"client":7}},"#,
        r#"{"name":"second step","ph":"X","pid":1,"tid":1,"cat":"step","ts":1.500,"dur":0.200,"args":{}},"#,
        r#"{"name":"write","ph":"X","pid":1,"tid":1,"cat":"write","ts":1.510,"dur":0.090,"args":{"client":7,"bytes":5}},"#,
        r#"{"name":"fork","ph":"X","pid":1,"tid":1,"cat":"fork","ts":1.700,"dur":0.050,"args":{"pid":42}},"#,
        r#"{"name":"A\"B","ph":"X","pid":2,"tid":7,"cat":"request","ts":0.100,"dur":1.500,"args":{"commands":1}},"#,
        r#"{"name":"reply","ph":"s","pid":1,"tid":1,"cat":"reply","id":1,"ts":0.100},"#,
        r#"{"name":"reply","ph":"f","pid":1,"tid":1,"cat":"reply","id":1,"ts":1.510,"bp":"e"},"#,
        r#"{"name":"child 42","ph":"X","pid":1,"tid":4,"cat":"child","ts":1.700,"dur":0.300,"args":{}}"#,
    ];
    let from = lines.len() - 1 - spans.len();
    assert_eq!(lines[from..lines.len() - 1], spans);
    for name in ["event loop", "AOF writer", "child", "client 7"] {
        assert!(
            text.contains(&format!(r#""args":{{"name":"{name}"}}"#)),
            "{name}"
        );
    }
}

#[test]
fn kinds_have_distinct_names_in_their_order() {
    for (at, kind) in EventKind::ALL.iter().enumerate() {
        assert_eq!(*kind as usize, at);
    }
    let names: std::collections::BTreeSet<_> =
        EventKind::ALL.iter().map(|kind| kind.name()).collect();
    assert_eq!(names.len(), EventKind::ALL.len());
}
