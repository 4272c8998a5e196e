use super::*;
use crate::client;
use crate::config::Config;

/// Creates a server with `n` clients, and references to these clients.
fn server_with(n: usize) -> (Server, Vec<ClientRef>) {
    let mut server = Server::new(Config::default(), Vec::new());
    let mut refs = Vec::new();
    for _ in 0..n {
        let id = server.net.clients.next_id();
        let slot = server.net.clients.insert(Box::new(Client::detached(id, 0)));
        refs.push(ClientRef { slot, id });
    }
    (server, refs)
}

fn with<T>(server: &mut Server, r: ClientRef, f: impl FnOnce(&mut Server, &mut Client) -> T) -> T {
    let mut c = server.net.clients.take_ref(r).unwrap();
    let out = f(server, &mut c);
    server.net.clients.put(c);
    out
}

fn received(server: &mut Server, r: ClientRef) -> String {
    String::from_utf8(with(server, r, |_, c| c.reply.take_bytes())).unwrap()
}

#[test]
fn a_message_reaches_channels_and_patterns_in_the_protocol_of_each() {
    let (mut server, refs) = server_with(2);
    with(&mut server, refs[0], |s, c| {
        subscribe(s, c, ChannelKind::Channel, b"news")
    });
    with(&mut server, refs[1], |s, c| {
        c.reply.resp3 = true;
        subscribe(s, c, ChannelKind::Pattern, b"n*")
    });
    assert_eq!(publish(&mut server, b"news", b"hi", 0), 2);
    let message = "*3\r\n$7\r\nmessage\r\n$4\r\nnews\r\n$2\r\nhi\r\n";
    assert_eq!(received(&mut server, refs[0]), message);
    let message = ">4\r\n$8\r\npmessage\r\n$2\r\nn*\r\n$4\r\nnews\r\n$2\r\nhi\r\n";
    assert_eq!(received(&mut server, refs[1]), message);
    assert_eq!(publish(&mut server, b"other", b"hi", 0), 0);
    assert_eq!(publish_shard(&mut server, b"news", b"hi", 0), 0);
}

#[test]
fn a_client_hears_itself_after_its_reply() {
    let (mut server, refs) = server_with(1);
    with(&mut server, refs[0], |s, c| {
        subscribe(s, c, ChannelKind::Channel, b"x");
        assert_eq!(publish(s, b"x", b"1", 0), 1);
        c.reply.integer(1);
        client::table::send_later(&mut s.net, c, 0);
    });
    let expected = ":1\r\n*3\r\n$7\r\nmessage\r\n$1\r\nx\r\n$1\r\n1\r\n";
    assert_eq!(received(&mut server, refs[0]), expected);
    assert!(server.net.later.is_empty());
}

/// A replica sends only acknowledgements over the link to its primary, even if the stream has
/// SUBSCRIBE.
#[test]
fn a_primary_that_subscribes_gets_nothing() {
    let (mut server, refs) = server_with(1);
    with(&mut server, refs[0], |s, c| {
        c.set(flag::PRIMARY | flag::REPLY_OFF);
        subscribe(s, c, ChannelKind::Channel, b"x");
        confirm(s, c, "subscribe", ChannelKind::Channel, Some(b"x"));
        assert_eq!(publish(s, b"x", b"1", 0), 1, "from its own stream");
        client::table::send_later(&mut s.net, c, 0);
    });
    assert!(server.net.later.is_empty());
    assert_eq!(
        publish(&mut server, b"x", b"2", 0),
        1,
        "from another client"
    );
    assert_eq!(received(&mut server, refs[0]), "");
}

#[test]
fn the_last_subscription_ends_subscribe_mode_and_empties_the_tables() {
    let (mut server, refs) = server_with(1);
    with(&mut server, refs[0], |s, c| {
        for kind in [
            ChannelKind::Channel,
            ChannelKind::Pattern,
            ChannelKind::Shard,
        ] {
            assert!(subscribe(s, c, kind, b"a"));
            assert!(
                !subscribe(s, c, kind, b"a"),
                "the second time changes nothing"
            );
        }
        assert_eq!(c.pubsub.as_ref().unwrap().count(ChannelKind::Channel), 2);
        assert_eq!(c.pubsub.as_ref().unwrap().count(ChannelKind::Shard), 1);
        assert!(unsubscribe(s, c, ChannelKind::Channel, b"a"));
        assert!(!unsubscribe(s, c, ChannelKind::Channel, b"a"));
        assert!(c.has(flag::PUBSUB));
        forget_client(s, c);
        assert!(!c.has(flag::PUBSUB) && c.pubsub.is_none());
    });
    for kind in [
        ChannelKind::Channel,
        ChannelKind::Pattern,
        ChannelKind::Shard,
    ] {
        assert!(server.pubsub.of(kind).is_empty());
    }
}
