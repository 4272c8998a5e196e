//! Tests of timers, of the functions called before and after the poll, and of what ends a poll.

use std::time::Duration;

use ae::{EventLoop, Events, Moment, Phase, TimerId};

#[derive(Default)]
struct World {
    log: Vec<u64>,
    phases: Vec<&'static str>,
    ids: Vec<TimerId>,
}

type Loop = EventLoop<World>;
const AN_AGE: Duration = Duration::from_secs(1_000_000);

fn note(el: &mut Loop, w: &mut World, id: TimerId) -> Option<Duration> {
    w.log.push(el.timer_data(id).unwrap());
    None
}

fn again_at_once(el: &mut Loop, w: &mut World, id: TimerId) -> Option<Duration> {
    note(el, w, id);
    Some(Duration::ZERO)
}

fn turn(el: &mut Loop, w: &mut World) -> Vec<u64> {
    el.process_events(w, Events::ALL).unwrap();
    std::mem::take(&mut w.log)
}

#[test]
fn timers_fire_in_order_and_once() {
    let (mut el, mut w) = (Loop::new(8).unwrap(), World::default());
    el.add_timer(AN_AGE, 9, note);
    for data in 1..=3 {
        el.add_timer(Duration::ZERO, data, note);
    }
    assert_eq!(turn(&mut el, &mut w), [1, 2, 3]);
    assert_eq!(
        el.process_events(&mut w, Events::ALL | Events::DONT_WAIT)
            .unwrap(),
        0
    );
}

#[test]
fn poll_waits_until_a_timer_is_due_and_not_in_vain() {
    let (mut el, mut w) = (Loop::new(8).unwrap(), World::default());
    el.add_timer(Duration::from_micros(1500), 1, note);
    assert_eq!(
        turn(&mut el, &mut w),
        [1],
        "one sleep is enough, because the wait is rounded up"
    );
}

#[test]
fn timer_made_in_a_timer_waits_one_iteration() {
    fn make_another(el: &mut Loop, w: &mut World, id: TimerId) -> Option<Duration> {
        el.add_timer(Duration::ZERO, 2, note);
        note(el, w, id)
    }
    let (mut el, mut w) = (Loop::new(8).unwrap(), World::default());
    el.add_timer(Duration::ZERO, 1, make_another);
    assert_eq!(turn(&mut el, &mut w), [1]);
    assert_eq!(turn(&mut el, &mut w), [2]);
}

#[test]
fn timer_that_comes_again_waits_one_iteration() {
    let (mut el, mut w) = (Loop::new(8).unwrap(), World::default());
    let id = el.add_timer(Duration::ZERO, 1, again_at_once);
    assert_eq!(turn(&mut el, &mut w), [1]);
    assert_eq!(turn(&mut el, &mut w), [1]);
    assert!(el.delete_timer(id));
    assert!(!el.delete_timer(id));
    assert_eq!(el.timer_data(id), None);
}

#[test]
fn handler_deletes_itself_and_a_timer_that_is_due() {
    fn delete_all(el: &mut Loop, w: &mut World, id: TimerId) -> Option<Duration> {
        note(el, w, id);
        for id in w.ids.drain(..) {
            assert!(el.delete_timer(id));
        }
        Some(Duration::ZERO)
    }
    let (mut el, mut w) = (Loop::new(8).unwrap(), World::default());
    for data in 1..=3 {
        w.ids.push(el.add_timer(Duration::ZERO, data, delete_all));
    }
    assert_eq!(turn(&mut el, &mut w), [1]);
    el.add_timer(Duration::ZERO, 4, note);
    assert_eq!(turn(&mut el, &mut w), [4]);
}

/// The slot of a timer that deleted itself may be reused before its handler returns. The handler's
/// return value must not affect the new timer in the slot.
#[test]
fn deleted_timer_does_not_come_again_in_a_reused_slot() {
    fn replace_itself(el: &mut Loop, w: &mut World, id: TimerId) -> Option<Duration> {
        note(el, w, id);
        el.delete_timer(id);
        let fresh = el.add_timer(AN_AGE, 2, note);
        assert_ne!(fresh, id);
        Some(Duration::ZERO)
    }
    let (mut el, mut w) = (Loop::new(8).unwrap(), World::default());
    el.add_timer(Duration::ZERO, 1, replace_itself);
    assert_eq!(turn(&mut el, &mut w), [1]);
    assert_eq!(
        el.process_events(&mut w, Events::ALL | Events::DONT_WAIT)
            .unwrap(),
        0
    );
}

#[test]
fn nested_turn_does_not_fire_the_running_timer() {
    fn nest(el: &mut Loop, w: &mut World, id: TimerId) -> Option<Duration> {
        note(el, w, id);
        el.process_events(w, Events::ALL | Events::DONT_WAIT)
            .unwrap();
        w.log.push(0);
        None
    }
    let (mut el, mut w) = (Loop::new(8).unwrap(), World::default());
    el.add_timer(Duration::ZERO, 1, nest);
    el.add_timer(Duration::ZERO, 2, note);
    assert_eq!(turn(&mut el, &mut w), [1, 2, 0]);
}

#[test]
fn flags_choose_what_a_turn_does() {
    let (mut el, mut w) = (Loop::new(8).unwrap(), World::default());
    el.set_before_sleep(Some(|_, w: &mut World| w.phases.push("before")));
    el.set_after_sleep(Some(|_, w: &mut World| w.phases.push("after")));
    el.add_timer(Duration::ZERO, 1, note);
    let now = Events::FILES | Events::DONT_WAIT;
    assert_eq!(el.process_events(&mut w, now).unwrap(), 0);
    assert!(w.log.is_empty() && w.phases.is_empty());
    el.process_events(&mut w, now | Events::CALL_AFTER_SLEEP)
        .unwrap();
    el.process_events(&mut w, now | Events::CALL_BEFORE_SLEEP)
        .unwrap();
    assert_eq!(w.phases, ["after", "before"]);
    assert_eq!(
        el.process_events(&mut w, Events::DONT_WAIT | Events::CALL_BEFORE_SLEEP)
            .unwrap(),
        0
    );
    assert_eq!(
        w.phases.len(),
        2,
        "neither files nor timers: nothing at all"
    );
    assert_eq!(el.process_events(&mut w, Events::TIMERS).unwrap(), 1);
}

#[test]
fn observer_sees_the_phases_in_order() {
    fn observe(_: &Loop, w: &mut World, phase: Phase, moment: Moment) {
        w.phases.push(match (phase, moment) {
            (Phase::Turn, Moment::Begin) => "turn",
            (Phase::Turn, Moment::End) => "end",
            (_, Moment::End) => return,
            (Phase::BeforeSleep, _) => "before",
            (Phase::Poll(_), _) => "poll",
            (Phase::AfterSleep, _) => "after",
            (Phase::File(..), _) => "file",
            (Phase::Timer(_), _) => "timer",
        });
    }
    let (mut el, mut w) = (Loop::new(8).unwrap(), World::default());
    el.set_before_sleep(Some(|_, _| {}));
    el.set_after_sleep(Some(|_, _| {}));
    el.set_observer(Some(observe));
    el.add_timer(Duration::ZERO, 1, |el, _, _| {
        el.stop();
        None
    });
    el.run(&mut w).unwrap();
    assert_eq!(
        w.phases,
        ["turn", "before", "poll", "after", "timer", "end"]
    );
    el.set_observer(None);
    el.stop();
    el.run(&mut w).unwrap();
    assert_eq!(w.phases.len(), 6);
}

#[test]
fn stop_in_before_sleep_does_not_sleep() {
    let (mut el, mut w) = (Loop::new(8).unwrap(), World::default());
    el.set_before_sleep(Some(|el, _| el.stop()));
    el.run(&mut w).unwrap();
}

#[test]
fn dont_wait_holds_for_one_poll() {
    let (mut el, mut w) = (Loop::new(8).unwrap(), World::default());
    el.set_dont_wait(true);
    let now = Events::ALL | Events::DONT_WAIT;
    el.process_events(&mut w, now).unwrap();
    // This poll would sleep for ever if the poll with DONT_WAIT had consumed the flag of
    // `set_dont_wait`.
    el.process_events(&mut w, Events::ALL).unwrap();
    el.add_timer(Duration::from_millis(1), 1, note);
    assert_eq!(
        turn(&mut el, &mut w),
        [1],
        "used up: this one slept until the timer was due"
    );
}

#[test]
fn waker_ends_a_poll_from_another_thread() {
    let (mut el, mut w) = (Loop::new(8).unwrap(), World::default());
    let (waker, (result, results)) = (el.waker(), std::sync::mpsc::channel());
    let worker = std::thread::spawn(move || {
        for step in 0..100 {
            result.send(step).unwrap();
            waker.clone().wake().unwrap();
        }
    });
    let mut seen = Vec::new();
    while seen.len() < 100 {
        assert_eq!(el.process_events(&mut w, Events::ALL).unwrap(), 0);
        seen.extend(results.try_iter());
    }
    assert_eq!(seen, (0..100).collect::<Vec<_>>());
    worker.join().unwrap();
}

#[test]
fn backend_has_its_name() {
    let expected = if cfg!(target_os = "linux") {
        "epoll"
    } else {
        "kqueue"
    };
    assert_eq!(Loop::backend_name(), expected);
}
