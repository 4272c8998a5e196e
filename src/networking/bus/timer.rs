//! The timer of the cluster's machine, and the work of the bus at the end of each turn.

use std::time::Duration;

use ae::{EventLoop, TimerId};

use super::execute;
use super::node::{follow_role, report_replication};
use crate::cluster::event::Event;
use crate::member;
use crate::networking::slots;
use crate::state::Server;

/// The loop's timer for the deadline of the cluster's machine.
#[derive(Default)]
pub(super) struct Alarm {
    id: Option<TimerId>,
    due_ms: u64,
}

/// Does the work of the bus at the end of a turn: actions that waited for the top level, results of
/// the disk, the tick if it is due, packets, and the timer for the next deadline.
pub fn turn(el: &mut EventLoop<Server>, server: &mut Server) {
    if server.cluster.is_none() {
        return;
    }
    member::perform_waiting(server);
    serve(el, server);
    // The tick may have completed a move of slots, which `slots::turn` continues.
    slots::turn(el, server);
    execute(el, server);
    set_alarm(el, server);
}

/// Takes the results of the disk, ticks the machine if it is due, and sends its packets. Also
/// called in nested turns, in which no timer fires.
pub fn serve(el: &mut EventLoop<Server>, server: &mut Server) {
    member::take_saves(server);
    report_replication(server);
    tick_if_due(server);
    execute(el, server);
}

fn tick_if_due(server: &mut Server) {
    let Some(member) = &server.cluster else {
        return;
    };
    // While the alarm for this deadline has not fired, the deadline has not come. No timer fires in
    // nested turns.
    let alarm = &server.bus.timer;
    let deadline = member.machine.deadline();
    if alarm.id.is_some() && alarm.due_ms <= deadline && !server.is_nested() {
        return;
    }
    if member.now_ms() >= deadline {
        member::step(server, Event::Tick);
        follow_role(server);
    }
}

fn set_alarm(el: &mut EventLoop<Server>, server: &mut Server) {
    let Some(member) = &server.cluster else {
        return;
    };
    let due_ms = member.machine.deadline();
    let alarm = &mut server.bus.timer;
    if alarm.id.is_some() && alarm.due_ms <= due_ms {
        return;
    }
    if let Some(id) = alarm.id.take() {
        el.delete_timer(id);
    }
    let after = Duration::from_millis(due_ms.saturating_sub(member.now_ms()));
    alarm.id = Some(el.add_timer(after, 0, timer_handler));
    alarm.due_ms = due_ms;
}

/// Only wakes the loop: [`turn`], at the end of the turn, does the work.
fn timer_handler(_: &mut EventLoop<Server>, server: &mut Server, _: TimerId) -> Option<Duration> {
    server.bus.timer.id = None;
    None
}
