//! The timer of the cluster's state machine, and the work of the cluster bus at the end of each
//! turn.

use std::time::Duration;

use ae::{EventLoop, TimerId};

use super::execute;
use super::node::{follow_role, report_replication};
use crate::cluster::event::Event;
use crate::member;
use crate::networking::slots;
use crate::state::Server;

/// The event loop's timer for the deadline of the cluster's state machine.
#[derive(Default)]
pub(super) struct Alarm {
    id: Option<TimerId>,
    due_ms: u64,
}

/// Does the work of the cluster bus at the end of a turn: executes actions that had to wait for the
/// end of a nested turn, takes the results of writes of nodes.conf, passes the tick if it is due,
/// sends packets, and sets the timer for the next deadline.
pub fn turn(el: &mut EventLoop<Server>, server: &mut Server) {
    if server.cluster.is_none() {
        return;
    }
    member::perform_waiting(server);
    serve(el, server);
    // The tick may have changed the state of a slot move, which `slots::turn` continues.
    slots::turn(el, server);
    execute(el, server);
    set_alarm(el, server);
}

/// Takes the results of writes of nodes.conf, passes a due tick to the cluster's state machine, and
/// sends the resulting packets. `serve` is also called in nested turns, in which no timer fires.
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
    // While the timer for the state machine's deadline has not fired, the deadline has not come,
    // except in nested turns, in which no timer fires.
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

/// The timer only wakes the event loop: [`turn`], at the end of the turn, does the work of the bus.
fn timer_handler(_: &mut EventLoop<Server>, server: &mut Server, _: TimerId) -> Option<Duration> {
    server.bus.timer.id = None;
    None
}
