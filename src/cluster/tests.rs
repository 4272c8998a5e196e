//! Tests of one node's state machine; the packets of its peers are made by the tests.

use std::rc::Rc;

use super::event::{Action, Address, Event, LinkId, Now, Replication, Settings, Wire};
use super::name::{Ip, Name};
use super::packet::{Body, Header, Message, PingKind, flag, message_flag};
use super::{Cluster, SetSlot};
use crate::util::random::Random;

fn at(ms: u64) -> Now {
    Now {
        ms,
        wall_ms: 1_700_000_000_000 + ms,
    }
}

fn ip(last: u8) -> Ip {
    Ip::parse(format!("10.0.0.{last}").as_bytes()).expect("an address")
}

fn node(seed: u8) -> Cluster {
    let announced = Address {
        ip: ip(seed),
        tcp_port: 7000,
        tls_port: 0,
        bus_port: 17_000,
    };
    let settings = Settings {
        announced,
        ..Settings::default()
    };
    Cluster::new(at(1), settings, Random::from_seed(u64::from(seed)))
}

/// A peer of the tested node: the head of the packets that it sends, and the link on which they
/// arrive.
struct Peer {
    header: Header,
    link: LinkId,
}

fn head(name: u8) -> Header {
    Header {
        sender: Name::parse(&[name; 40]).expect("a name"),
        current_epoch: 5,
        config_epoch: 5,
        offset: 0,
        slots: Rc::default(),
        replica_of: None,
        ip: ip(9),
        port: 7000,
        second_port: 0,
        bus_port: 17_000,
        flags: flag::PRIMARY,
        state: 0,
        message_flags: [4, 0, 0],
    }
}

fn ping(kind: PingKind) -> Body {
    Body::Ping {
        kind,
        gossip: Vec::new(),
        extensions: Vec::new(),
    }
}

/// Passes a packet of the peer to the tested node, and returns the node's actions.
fn pass(node: &mut Cluster, peer: &Peer, body: Body) -> Vec<Action> {
    let message = Message::Full(Box::new(peer.header.clone()), body);
    let mut out = Vec::new();
    let event = Event::Packet {
        link: peer.link,
        peer: ip(9),
        local: ip(1),
        message: &message,
    };
    node.step(at(900), event, &mut out);
    out
}

/// Makes a peer that has completed its handshake with `node`.
fn join(node: &mut Cluster, name: u8) -> Peer {
    let mut out = Vec::new();
    let address = Address {
        ip: ip(name),
        tcp_port: 7000,
        tls_port: 0,
        bus_port: 17_000,
    };
    let now = at(200 + 200 * u64::from(name - b'b'));
    assert!(node.meet(now, address, &mut out));
    assert!(!node.meet(now, address, &mut out), "it runs already");
    node.step(now, Event::Tick, &mut out);
    let link = out.iter().find_map(|action| match action {
        Action::Wire(Wire::Connect { link, .. }) => Some(*link),
        _ => None,
    });
    let mut peer = Peer {
        header: head(name),
        link: link.expect("a connection"),
    };
    peer.header.ip = ip(name);
    node.step(now, Event::Connected(peer.link), &mut out);
    pass(node, &peer, ping(PingKind::Pong));
    let found = node.nodes().find(&peer.header.sender);
    assert!(found.is_some_and(|found| !node.nodes()[found].has(flag::HANDSHAKE)));
    peer
}

/// Makes a peer that `node` does not know, with a link that the peer opened.
fn stranger(node: &mut Cluster) -> Peer {
    let link = node.new_link();
    node.step(at(300), Event::Accepted(link), &mut Vec::new());
    Peer {
        header: head(b'z'),
        link,
    }
}

fn sent(actions: &[Action]) -> Vec<&Body> {
    let bodies = actions.iter().filter_map(|action| match action {
        Action::Wire(Wire::Send { message, .. }) => match &**message {
            Message::Full(_, body) => Some(body),
            _ => None,
        },
        _ => None,
    });
    bodies.collect()
}

/// Reports to the node that the last save in `actions` is on the disk; returns the node's actions.
fn save(node: &mut Cluster, actions: &[Action]) -> Vec<Action> {
    let token = actions.iter().rev().find_map(|action| match action {
        Action::Save { token, .. } => Some(*token),
        _ => None,
    });
    let mut out = Vec::new();
    node.step(at(900), Event::Saved(token.expect("a save")), &mut out);
    out
}

#[test]
fn an_unknown_sender_changes_nothing() {
    let mut node = node(1);
    let mut peer = stranger(&mut node);
    peer.header.slots = Rc::new((0..100).collect());
    let out = pass(&mut node, &peer, ping(PingKind::Ping));
    assert!(
        matches!(
            sent(&out)[..],
            [Body::Ping {
                kind: PingKind::Pong,
                ..
            }]
        ),
        "{out:?}"
    );
    let name = node.myself().name;
    pass(&mut node, &peer, Body::Fail(name));
    pass(&mut node, &peer, Body::AuthRequest);
    assert_eq!((node.nodes().count(), node.slots().assigned()), (1, 0));
    assert_eq!(node.current_epoch(), 0);
}

/// A peer that has just met a node gets the node's host name as soon as it gets the node's slots.
#[test]
fn the_first_answer_has_extensions_if_the_peer_reads_them() {
    let mut node = node(1);
    let mut peer = stranger(&mut node);
    for (flags, expected) in [(0, false), (message_flag::EXTENSIONS, true)] {
        peer.header.message_flags[0] = flags;
        let out = pass(&mut node, &peer, ping(PingKind::Ping));
        let has =
            |body: &&Body| matches!(body, Body::Ping { extensions, .. } if !extensions.is_empty());
        assert_eq!(sent(&out).iter().any(has), expected, "{out:?}");
    }
}

#[test]
fn an_epoch_from_the_future_is_not_taken() {
    let mut node = node(1);
    let mut peer = join(&mut node, b'b');
    assert_eq!(node.current_epoch(), 5);
    peer.header.current_epoch = u64::MAX;
    peer.header.slots = Rc::new((0..100).collect());
    pass(&mut node, &peer, ping(PingKind::Ping));
    assert_eq!((node.current_epoch(), node.slots().assigned()), (5, 0));
}

#[test]
fn a_claim_with_a_lower_epoch_is_answered_with_an_update() {
    let mut node = node(1);
    let mut peer = join(&mut node, b'b');
    let mut out = Vec::new();
    assert!(node.bump(at(900), &mut out), "it had epoch 0");
    save(&mut node, &out);
    node.add_slots(at(900), &[7], &mut Vec::new())
        .expect("a free slot");
    let slots = |node: &Cluster, slot| {
        node.slots()
            .owner(slot)
            .map(|owner| node.nodes()[owner].name)
    };
    let (own, other) = (node.myself().name, peer.header.sender);
    peer.header.slots = Rc::new([7, 8].into_iter().collect());
    let out = pass(&mut node, &peer, ping(PingKind::Pong));
    let update =
        |body: &&Body| matches!(body, Body::Update { config_epoch: 6, node, .. } if *node == own);
    assert!(sent(&out).iter().any(update), "{out:?}");
    assert_eq!((slots(&node, 7), slots(&node, 8)), (Some(own), Some(other)));
    // A claim with a higher epoch takes this node's only slot, so this node becomes a replica of
    // the peer.
    (peer.header.current_epoch, peer.header.config_epoch) = (9, 9);
    let out = pass(&mut node, &peer, ping(PingKind::Pong));
    assert_eq!(slots(&node, 7), Some(other));
    assert!(
        out.iter()
            .any(|action| matches!(action, Action::Follow { primary, .. } if *primary == other))
    );
}

#[test]
fn a_vote_waits_for_the_disk_and_is_given_once() {
    let mut node = node(1);
    let mut primary = join(&mut node, b'b');
    primary.header.slots = Rc::new([1].into_iter().collect());
    pass(&mut node, &primary, ping(PingKind::Pong));
    node.add_slots(at(900), &[7], &mut Vec::new())
        .expect("a free slot");
    let replica = |node: &mut Cluster, name: u8| {
        let mut peer = join(node, name);
        peer.header.replica_of = Some(head(b'b').sender);
        peer.header.flags = flag::REPLICA;
        peer.header.slots = Rc::new([1].into_iter().collect());
        pass(node, &peer, ping(PingKind::Pong));
        peer.header.current_epoch = 6;
        peer
    };
    let (first, second) = (replica(&mut node, b'c'), replica(&mut node, b'd'));
    let no_vote = |out: &[Action]| !sent(out).contains(&&Body::AuthAck);
    let out = pass(&mut node, &first, Body::AuthRequest);
    assert!(
        no_vote(&out) && node.last_vote_epoch() == 0,
        "its primary is up"
    );
    pass(&mut node, &first, Body::Fail(head(b'b').sender));
    let out = pass(&mut node, &first, Body::AuthRequest);
    assert!(no_vote(&out), "not yet on the disk");
    assert!(
        out.iter()
            .any(|action| matches!(action, Action::Save { durable: true, .. }))
    );
    let again = pass(&mut node, &first, Body::AuthRequest);
    assert!(no_vote(&again));
    let other = pass(&mut node, &second, Body::AuthRequest);
    assert!(no_vote(&other));
    assert!(!no_vote(&save(&mut node, &out)));
    // The vote was lost on the way, so the node repeats it. The other candidate of the same shard
    // gets no vote, not even in a later epoch.
    assert!(!no_vote(&pass(&mut node, &first, Body::AuthRequest)));
    let mut later = second;
    later.header.current_epoch = 7;
    let out = pass(&mut node, &later, Body::AuthRequest);
    assert!(no_vote(&out) && node.last_vote_epoch() == 6);
    let conf = node.conf(at(900));
    assert_eq!((conf.current_epoch, conf.last_vote_epoch), (7, 6));
}

#[test]
fn the_state_survives_a_restart() {
    let mut node = node(1);
    let peer = join(&mut node, b'b');
    node.add_slots(at(900), &[3, 4, 5, 9], &mut Vec::new())
        .expect("free slots");
    node.delete_slots(at(900), &[4], &mut Vec::new())
        .expect("its own slot");
    let target = peer.header.sender;
    node.set_slot(at(900), 9, SetSlot::Migrating(target), 1, &mut Vec::new())
        .expect("its slot");
    node.set_slot(at(900), 8, SetSlot::Importing(target), 0, &mut Vec::new())
        .expect("no owner");
    let conf = node.conf(at(900));
    let text = conf.render();
    let read = super::config_file::NodesConf::parse(text.as_bytes()).expect("its own file");
    assert_eq!(read, conf);
    let settings = Settings::default();
    let again = Cluster::load(at(1), settings, Random::from_seed(2), &read);
    assert_eq!(again.myself().name, node.myself().name);
    assert_eq!(again.slots().assigned(), 3);
    assert_eq!(
        again.slots().migrating.len() + again.slots().importing.len(),
        2
    );
    assert_eq!(again.current_epoch(), node.current_epoch());
}

#[test]
fn commands_that_must_fail_change_nothing() {
    let mut node = node(1);
    let peer = join(&mut node, b'b');
    let out = &mut Vec::new();
    let (own, other) = (node.myself().name, peer.header.sender);
    let unknown = Name::parse(&[b'q'; 40]).expect("a name");
    let now = at(900);
    node.add_slots(now, &[1], out).expect("a free slot");
    out.clear();
    for refused in [
        node.add_slots(now, &[1], out),
        node.add_slots(now, &[2, 2], out),
        node.add_slots(now, &[16_384], out),
        node.delete_slots(now, &[2], out),
        node.forget(now, &own, out),
        node.forget(now, &unknown, out),
        node.replicate(now, &own, true, out),
        node.replicate(now, &other, true, out),
        node.set_slot(now, 2, SetSlot::Migrating(other), 0, out),
        node.set_slot(now, 1, SetSlot::Importing(other), 0, out),
        node.set_slot(now, 1, SetSlot::Owner(other), 1, out),
        node.set_slot(now, 1, SetSlot::Owner(unknown), 0, out),
        node.set_config_epoch(now, 7, out),
        node.failover(now, super::ManualKind::Takeover, out),
    ] {
        assert!(refused.is_err());
    }
    assert!(out.is_empty(), "{out:?}");
    assert_eq!((node.slots().assigned(), node.nodes().count()), (1, 2));
}

#[test]
fn a_replica_may_leave_its_primary_and_a_node_its_cluster() {
    let mut node = node(1);
    let peer = join(&mut node, b'b');
    let out = &mut Vec::new();
    node.replicate(at(900), &peer.header.sender, true, out)
        .expect("an empty node");
    assert!(node.myself().replica_of.is_some());
    node.replicate_no_one(at(900), out);
    assert!(node.myself().is_primary() && out.contains(&Action::Flush));
    let (name, shard) = (node.myself().name, node.myself().shard);
    node.reset(at(900), false, out);
    assert_eq!((node.nodes().count(), node.myself().name), (1, name));
    assert_ne!(node.myself().shard, shard);
    node.reset(at(900), true, out);
    assert!(node.current_epoch() == 0 && node.myself().name != name);
}

/// A replica whose data are those of another shard would win an election by the offset in its old
/// history, and so the data of its new shard would be lost.
#[test]
fn data_of_another_shard_have_no_offset() {
    let mut node = node(1);
    let peer = join(&mut node, b'b');
    let mut out = Vec::new();
    let own = Replication {
        offset: 99,
        ..Replication::default()
    };
    node.step(at(900), Event::Replication(own), &mut out);
    assert_eq!(node.myself().offset, 99);
    node.replicate(at(900), &peer.header.sender, true, &mut out)
        .expect("an empty node");
    let follows = |keeps: bool| move |action: &Action| matches!(action, Action::Follow { keeps_data, .. } if *keeps_data == keeps);
    assert!(out.iter().any(follows(false)), "{out:?}");
    assert_eq!((node.myself().offset, node.replication().offset), (0, 0));
}

/// The number of requests for votes in `actions`.
fn requests(actions: &[Action]) -> usize {
    let bodies = sent(actions).into_iter();
    bodies.filter(|body| **body == Body::AuthRequest).count()
}

/// After a manual failover has timed out, a second manual failover asks for votes at once, in a new
/// epoch.
#[test]
fn a_second_manual_failover_begins_with_a_new_election() {
    let mut node = node(1);
    let mut peer = join(&mut node, b'b');
    Rc::make_mut(&mut peer.header.slots).insert(1);
    pass(&mut node, &peer, ping(PingKind::Ping));
    let mut out = Vec::new();
    node.replicate(at(900), &peer.header.sender, true, &mut out)
        .expect("an empty node");
    save(&mut node, &out);

    out.clear();
    node.failover(at(900), super::ManualKind::Force, &mut out)
        .expect("a failover");
    assert_eq!(requests(&save(&mut node, &out)), 1);
    let epoch = node.current_epoch();

    out.clear();
    node.step(at(900 + 5001), Event::Tick, &mut out);
    assert_eq!(logged(&out, "Manual failover timed out"), 1);
    assert!(node.deadline() > 900 + 5001, "no request is repeated");
    out.clear();
    node.failover(at(6000), super::ManualKind::Force, &mut out)
        .expect("a failover");
    let line = format!("Failover election in progress for epoch {epoch}");
    assert_eq!(logged(&out, &line), 1, "{out:?}");
    assert_eq!(requests(&save(&mut node, &out)), 1);
    assert_eq!(node.current_epoch(), epoch + 1);
}

fn logged(actions: &[Action], begin: &str) -> usize {
    let lines = actions.iter();
    lines
        .filter(|action| matches!(action, Action::Log(_, text) if text.starts_with(begin)))
        .count()
}

#[test]
fn reports_of_voters_are_counted() {
    let mut node = node(1);
    let mut voter = join(&mut node, b'b');
    let other = join(&mut node, b'c').header.sender;
    voter.header.slots = Rc::new([1].into_iter().collect());
    pass(&mut node, &voter, ping(PingKind::Pong));
    let found = node.nodes().find(&other).expect("it has joined");
    assert_eq!(node.count_failure_reports(at(900), found), 0);
    let entry = super::packet::Gossip {
        name: other,
        ping_sent_s: 0,
        pong_received_s: 0,
        ip: ip(b'c'),
        port: 7000,
        bus_port: 17_000,
        flags: flag::PRIMARY | flag::PFAIL,
        second_port: 0,
    };
    let body = Body::Ping {
        kind: PingKind::Pong,
        gossip: vec![entry],
        extensions: Vec::new(),
    };
    pass(&mut node, &voter, body);
    assert_eq!(node.count_failure_reports(at(900), found), 1);
    assert_eq!(
        node.count_failure_reports(at(40_000), found),
        0,
        "it has expired"
    );
}

/// The slots of a node that is known only by gossip count when it has answered a ping, as the
/// answer has its host name.
#[test]
fn slots_of_a_node_known_by_gossip_wait_for_its_answer() {
    let mut node = node(1);
    let known = join(&mut node, b'b');
    let mut named = stranger(&mut node);
    named.header.sender = head(b'd').sender;
    named.header.slots = Rc::new((0..100).collect());
    let entry = super::packet::Gossip {
        name: named.header.sender,
        ping_sent_s: 0,
        pong_received_s: 0,
        ip: ip(9),
        port: 7000,
        bus_port: 17_000,
        flags: flag::PRIMARY,
        second_port: 0,
    };
    let body = Body::Ping {
        kind: PingKind::Pong,
        gossip: vec![entry],
        extensions: Vec::new(),
    };
    pass(&mut node, &known, body);
    let found = node.nodes().find(&named.header.sender).expect("a node");
    pass(&mut node, &named, ping(PingKind::Ping));
    assert_eq!(node.slots().assigned(), 0);
    // The node known by gossip does not answer, so its claim counts after the time for a handshake.
    let message = Message::Full(Box::new(named.header.clone()), ping(PingKind::Ping));
    let event = Event::Packet {
        link: named.link,
        peer: ip(9),
        local: ip(1),
        message: &message,
    };
    node.step(at(40_000), event, &mut Vec::new());
    assert_eq!(node.slots().owner(99), Some(found));
}

/// A voter that finds that a primary doesn't answer reports that to the replica of the primary at
/// once.
#[test]
fn a_voter_reports_a_suspect_to_its_replicas_at_once() {
    let mut node = node(1);
    node.add_slots(at(100), &[2], &mut Vec::new())
        .expect("a free slot");
    let mut primary = join(&mut node, b'b');
    Rc::make_mut(&mut primary.header.slots).insert(1);
    pass(&mut node, &primary, ping(PingKind::Ping));
    let mut replica = join(&mut node, b'c');
    replica.header.flags = flag::REPLICA;
    replica.header.replica_of = Some(primary.header.sender);
    let answer = Message::Full(Box::new(replica.header.clone()), ping(PingKind::Pong));

    let suspect = node.nodes().find(&primary.header.sender).expect("a node");
    let mut ms = 1000;
    let mut out = Vec::new();
    while !node.nodes()[suspect].has(flag::PFAIL) {
        assert!(ms < 60_000, "the primary is never suspected");
        ms += 100;
        let event = Event::Packet {
            link: replica.link,
            peer: ip(b'c'),
            local: ip(1),
            message: &answer,
        };
        node.step(at(ms), event, &mut Vec::new());
        out.clear();
        node.step(at(ms), Event::Tick, &mut out);
    }
    let reports = sent(&out).into_iter().filter(|body| match body {
        Body::Ping { kind, gossip, .. } => {
            *kind == PingKind::Pong
                && gossip.len() == 1
                && gossip[0].name == primary.header.sender
                && gossip[0].flags & flag::PFAIL != 0
        }
        _ => false,
    });
    assert_eq!(reports.count(), 1, "{out:?}");
}

/// One false packet does not end all elections: epochs a little above the largest one are accepted.
#[test]
fn epochs_go_on_after_the_largest_one_that_a_packet_may_bring() {
    let mut node = node(1);
    let mut peer = join(&mut node, b'b');
    let largest = 1 << 63;
    let known = node.current_epoch();
    for (epoch, then) in [
        (largest + 1, known),
        (largest, largest),
        (largest + (1 << 33), largest),
        (largest + 7, largest + 7),
        (u64::MAX, largest + 7),
    ] {
        peer.header.current_epoch = epoch;
        pass(&mut node, &peer, ping(PingKind::Ping));
        assert_eq!(node.current_epoch(), then, "after a packet with {epoch}");
    }
}

/// The order of the checks is that of Redis.
#[test]
fn slots_are_checked_one_by_one() {
    let mut node = node(1);
    let mut out = Vec::new();
    node.add_slots(at(100), &[1], &mut out)
        .expect("a free slot");
    for (slots, error) in [
        (&[1, 1][..], "Slot 1 is already busy"),
        (&[2, 2, 1], "Slot 2 specified multiple times"),
        (&[1, 16_384], "Invalid or out of range slot"),
    ] {
        assert_eq!(node.add_slots(at(100), slots, &mut out), Err(error.into()));
    }
    for (slots, error) in [
        (&[2, 2][..], "Slot 2 is already unassigned"),
        (&[1, 1], "Slot 1 specified multiple times"),
    ] {
        let deleted = node.delete_slots(at(100), slots, &mut out);
        assert_eq!(deleted, Err(error.into()));
    }
}
