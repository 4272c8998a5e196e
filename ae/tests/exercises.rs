//! The exercises of the lessons: each test fails until its lesson is changed as `lessons/README.md`
//! asks. `make exercise N=5` runs the test of exercise 5.
//!
//! A plain run ignores all exercises, and `every_exercise_is_open` checks that each of them fails:
//! an exercise that passes by itself teaches nothing.

mod lesson;

use std::panic::catch_unwind;

use lesson::{Client, Lesson};

const EXERCISES: [fn(); 14] = [
    exercise_01,
    exercise_02,
    exercise_03,
    exercise_04,
    exercise_05,
    exercise_06,
    exercise_07,
    exercise_08,
    exercise_09,
    exercise_10,
    exercise_11,
    exercise_12,
    exercise_13,
    exercise_14,
];

#[test]
fn every_exercise_is_open() {
    for (number, exercise) in (1..).zip(EXERCISES) {
        assert!(
            catch_unwind(exercise).is_err(),
            "exercise {number} is solved"
        );
    }
}

/// A client that has sent 1 MB is closed, and each client has a megabyte of its own.
#[test]
#[ignore = "an exercise"]
fn exercise_01() {
    let lesson = Lesson::start(1);
    let portion = vec![b'x'; 64 * 1024];
    for _ in 0..2 {
        let mut client = lesson.connect();
        for sent in 0..15 {
            let comes_back =
                client.try_send(&portion) && client.receive(portion.len()).len() == portion.len();
            assert!(comes_back, "closed after {} KB", sent * 64);
        }
        let mut sent = 15 * portion.len();
        let mut is_open = true;
        while is_open {
            assert!(sent < 2 << 20, "a client that has sent 2 MB is served");
            is_open =
                client.try_send(&portion) && client.receive(portion.len()).len() == portion.len();
            sent += portion.len();
        }
    }
}

/// A new client, if the server lets it in; `None` if the server closes its connection.
fn let_in(port: u16) -> Option<Client> {
    let mut client = Client::connect(port);
    (client.try_send(b"x") && client.receive(1) == b"x").then_some(client)
}

/// The server has at most `max` clients on this port: further ones are closed until one of the
/// others leaves.
fn lets_in(port: u16, max: usize) {
    let fill = |count| (0..count).map_while(|_| let_in(port)).collect::<Vec<_>>();
    let mut clients = fill(max);
    assert_eq!(clients.len(), max, "clients were let in");
    assert!(let_in(port).is_none(), "one more than {max} was let in");
    clients.truncate(max - 2);
    // The server may notice a little later that two clients have left.
    for _ in 0..100 {
        clients.extend(fill(max - clients.len()));
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    assert_eq!(clients.len(), max, "two have left, and not two were let in");
    assert!(let_in(port).is_none(), "one more than {max} was let in");
}

/// The server has at most 100 clients: the next client is closed at once, and let in when another
/// has left.
#[test]
#[ignore = "an exercise"]
fn exercise_02() {
    lets_in(Lesson::start(2).port, 100);
}

/// A client that sends `?` and a line end gets the number of clients; other lines come back.
#[test]
#[ignore = "an exercise"]
fn exercise_03() {
    let lesson = Lesson::start(3);
    let mut clients: Vec<Client> = (0..3).map(|_| lesson.connect()).collect();
    assert!(clients.iter_mut().all(|client| client.echoes(b"x")));
    let count = |client: &mut Client| {
        client.send(b"?\n");
        client.next_line()
    };
    assert_eq!(count(&mut clients[0]), "3");
    assert!(clients[0].echoes(b"hello\n"));
    clients.pop();
    // The server may notice a little later that a client has left.
    let mut counts = (0..100).map(|_| {
        std::thread::sleep(std::time::Duration::from_millis(20));
        count(&mut clients[0])
    });
    assert!(
        counts.any(|count| count == "2"),
        "a client has left, and is still counted"
    );
}

/// Each new client is greeted once, with `welcome`, before it sends anything.
#[test]
#[ignore = "an exercise"]
fn exercise_04() {
    let lesson = Lesson::start(4);
    for _ in 0..2 {
        let mut client = lesson.connect();
        assert_eq!(client.first_line(), "welcome");
        assert_eq!(client.line("hello"), "hello");
        assert_eq!(client.line("hello"), "hello");
    }
}

/// Lesson 5 echoes all of 64 KB that are sent at once, as it reads until the socket is empty. It
/// still uses edges, and a buffer of 16 KB.
#[test]
#[ignore = "an exercise"]
fn exercise_05() {
    let lesson = Lesson::start(5);
    let mut client = lesson.connect();
    assert!(client.echoes(b"x"));
    // The program is paused meanwhile, so that all bytes are one edge.
    lesson.pause();
    client.send(&[b'x'; 64 * 1024]);
    lesson.resume();
    let mut came = 0;
    while !client.is_silent() {
        came += 1;
    }
    assert_eq!(came, 64 * 1024, "bytes came back");
    assert!(lesson.has_edges(), "the client is registered with a level");
    let text = std::fs::read_to_string(&lesson::sources()[4]).expect("text");
    assert!(text.contains("[0; 16 * 1024]"), "the buffer has 16 KB");
}

/// The server has at most 100 clients, as in exercise 2, but without a thread that could block.
#[test]
#[ignore = "an exercise"]
fn exercise_06() {
    lets_in(Lesson::start(6).port, 100);
    // Many at once: one edge stands for all of them.
    let lesson = Lesson::start(6);
    let clients: Vec<Client> = (0..100).map_while(|_| let_in(lesson.port)).collect();
    lesson.pause();
    let mut further: Vec<Client> = (0..20).map(|_| lesson.connect()).collect();
    lesson.resume();
    let closed = further
        .iter_mut()
        .map_while(|c| c.is_closed().then_some(c))
        .count();
    assert_eq!(closed, 20, "that came at once beside {}", clients.len());
}

/// A client that sends `quit` and a line end gets `bye`, and then the end of the stream.
#[test]
#[ignore = "an exercise"]
fn exercise_07() {
    let lesson = Lesson::start(7);
    let (mut client, mut other) = (lesson.connect(), lesson.connect());
    assert!(client.echoes(b"hello\n") && other.echoes(b"hello\n"));
    client.send(b"quit\n");
    assert_eq!(client.next_line(), "bye");
    assert_eq!(client.receive(1), b"");
    assert!(other.echoes(b"hello\n"), "closed with the other one");
}

/// A client that has sent nothing for a second after it connected is closed; a client that has sent
/// something may be idle for ten seconds.
#[test]
#[ignore = "an exercise"]
fn exercise_08() {
    let lesson = Lesson::start(8);
    let mut known = lesson.connect();
    assert!(known.echoes(b"x"));
    // One after the other, so that the client that has sent something is idle for two seconds.
    for _ in 0..2 {
        assert_eq!(lesson.connect().receive(1), b"");
    }
    let comes_back = known.try_send(b"x") && known.receive(1) == b"x";
    assert!(
        comes_back,
        "a client that has sent something is closed, too"
    );
}

/// The operator's port lets three clients in; a fourth client is closed at once. The other port has
/// no such limit.
#[test]
#[ignore = "an exercise"]
fn exercise_09() {
    let lesson = Lesson::start(9);
    let others = (0..10).map_while(|_| let_in(lesson.port));
    assert_eq!(others.collect::<Vec<_>>().len(), 10);
    lets_in(lesson.operator, 3);
    let others = (0..10).map_while(|_| let_in(lesson.port));
    assert_eq!(others.collect::<Vec<_>>().len(), 10, "of the other port");
}

/// `DEL key` removes a key: the reply is `:1`, or `:0` if the key did not exist.
#[test]
#[ignore = "an exercise"]
fn exercise_10() {
    let lesson = Lesson::start(10);
    let mut client = lesson.connect();
    assert_eq!(client.line("SET k v"), "+OK");
    assert_eq!(client.line("SET other v"), "+OK");
    assert_eq!(client.line("DEL k"), ":1");
    assert_eq!(client.line("GET k"), "$-1");
    assert_eq!(client.line("DEL k"), ":0");
    assert_eq!(client.line("GET other"), "$1");
}

/// The command `PENDING` replies with the number of PRIMES whose results are outstanding.
#[test]
#[ignore = "an exercise"]
fn exercise_11() {
    let lesson = Lesson::start(11);
    let (mut first, mut second, mut other) = (lesson.connect(), lesson.connect(), lesson.connect());
    assert_eq!(other.line("PENDING"), ":0");
    // The second waits for the first, which is over a second or more later.
    first.send(b"PRIMES 2000000\r\n");
    second.send(b"PRIMES 10\r\n");
    while other.line("PENDING") != ":2" {
        assert!(second.is_silent(), "never two outstanding");
    }
    assert_eq!(second.next_line(), ":4");
    assert_eq!(other.line("PENDING"), ":0");
}

/// `MOVETO port key`: does what COPYTO does, and removes the key when the other server has replied
/// `+OK`, and only then.
#[test]
#[ignore = "an exercise"]
fn exercise_12() {
    let (lesson, target) = (Lesson::start(12), Lesson::start(10));
    let mut client = lesson.connect();
    assert_eq!(client.line("SET k v"), "+OK");
    assert!(client.line("MOVETO 1 k").starts_with("-ERR "));
    assert_eq!(client.line("GET k"), "$1");
    assert_eq!(client.next_line(), "v");
    // A server that replies an error does not have the key.
    let refuses = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = refuses.local_addr().expect("an address").port();
    let refusal = std::thread::spawn(move || {
        let (stream, _) = refuses.accept().expect("a connection");
        let mut refuses = Client { stream };
        refuses.next_line();
        refuses.send(b"-ERR no\r\n");
    });
    assert_eq!(client.line(&format!("MOVETO {port} k")), "-ERR no");
    refusal.join().expect("the server that refuses");
    assert_eq!(client.line("GET k"), "$1");
    assert_eq!(client.next_line(), "v");
    assert_eq!(client.line(&format!("MOVETO {} k", target.port)), "+OK");
    assert_eq!(client.line("GET k"), "$-1");
    assert_eq!(target.connect().line("GET k"), "$1");
}

/// PING is answered while SPIN runs; all other commands are still refused.
#[test]
#[ignore = "an exercise"]
fn exercise_13() {
    let lesson = Lesson::start(13);
    let (mut waits, mut other) = (lesson.connect(), lesson.connect());
    waits.send(b"SPIN 60000\r\n");
    // SPIN may begin a little later.
    let mut replies = (0..100).map(|_| {
        std::thread::sleep(std::time::Duration::from_millis(20));
        other.line("GET k")
    });
    assert!(
        replies.any(|reply| reply.starts_with("-BUSY")),
        "GET is not refused while SPIN runs"
    );
    let reply = other.line("PING");
    assert_eq!(other.line("KILL"), "+OK");
    assert_eq!(reply, "+PONG");
}

/// The command `SAVES` replies with the number of snapshots that have succeeded.
#[test]
#[ignore = "an exercise"]
fn exercise_14() {
    let lesson = Lesson::start(14);
    let mut client = lesson.connect();
    assert_eq!(client.line("SET k v"), "+OK");
    assert_eq!(client.line("SAVES"), ":0");
    assert!(client.line("SAVE").starts_with(':'));
    assert_eq!(client.line("SAVES"), ":1");
    // A child that can't write fails.
    let file = lesson.folder.join("lesson.snapshot");
    std::fs::remove_file(&file).expect("the snapshot");
    std::os::unix::fs::symlink("/dev/full", &file).expect("a link");
    assert!(client.line("SAVE").starts_with("-ERR "));
    assert_eq!(client.line("SAVES"), ":1");
}
