//! The replies of other servers to the handshakes of outgoing links.

use aeris::link::{Action, Errors, Event, Expect, Link, Plan, Step, Unasked};

/// A handshake whose requests expect all forms of replies.
fn plan(unasked: Unasked) -> Plan {
    let script = vec![
        Step::new(1, &["PING"]).errors(Errors::Tolerated).wait(),
        Step::auth(2, None, "secret"),
        Step::new(3, &["REPLCONF", "ACK", "0"]).expect(Expect::Nothing),
        Step::new(4, &["PSYNC", "?", "-1"])
            .expect(Expect::Line)
            .errors(Errors::Tolerated),
    ];
    let plan = Plan::new(script, unasked, 1000);
    Plan {
        reply_max: 1 << 20,
        ..plan
    }
}

/// Passes the input, in pieces, to a new link. Returns the actions of the link and the remaining
/// bytes.
fn hear(pieces: &[&[u8]], unasked: Unasked) -> (Vec<Action>, Vec<u8>) {
    let mut link = Link::new(0, plan(unasked));
    let mut actions = Vec::new();
    link.step(0, Event::Connected, &mut actions);
    for piece in pieces {
        link.step(0, Event::Received(piece), &mut actions);
        let sent = link.output().len();
        link.step(0, Event::Sent(sent), &mut actions);
    }
    let is_end = |action: &Action| matches!(action, Action::Failed(_) | Action::Closed);
    let ends = actions.iter().filter(|action| is_end(action)).count();
    assert!(ends == 0 || ends == 1 && actions.last().is_some_and(is_end));
    (actions, link.take_rest().received)
}

/// The actions of a link must not depend on where its input is split. The first byte of the input
/// selects what the link does with bytes after the handshake.
pub fn link(bytes: &[u8]) {
    let Some((&mode, message)) = bytes.split_first() else {
        return;
    };
    let unasked = match mode % 3 {
        0 => Unasked::Keep,
        1 => Unasked::Deliver,
        _ => Unasked::Refuse,
    };
    let whole = hear(&[message], unasked);
    for at in 0..message.len().min(200) {
        let (head, tail) = message.split_at(at);
        assert_eq!(hear(&[head, tail], unasked), whole, "split at {at}");
    }
    let single: Vec<&[u8]> = message.chunks(1).collect();
    assert_eq!(hear(&single, unasked), whole, "byte by byte");
}
