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

/// A client that has sent 1 MB is closed.
#[test]
#[ignore = "an exercise"]
fn exercise_01() {
    let lesson = Lesson::start(1);
    let mut client = lesson.connect();
    let portion = vec![b'x'; 64 * 1024];
    for _ in 0..15 {
        assert!(client.echoes(&portion), "closed too early");
    }
    let mut rest = 0;
    while rest < 4 << 20 && client.try_send(&portion) {
        let came = client.receive(portion.len()).len();
        rest += came;
        if came < portion.len() {
            return;
        }
    }
    panic!("{rest} further bytes were echoed");
}

/// The server has at most 100 clients: the next client is closed at once.
#[test]
#[ignore = "an exercise"]
fn exercise_02() {
    let lesson = Lesson::start(2);
    let mut clients: Vec<Client> = (0..100).map(|_| lesson.connect()).collect();
    assert!(clients.iter_mut().all(|client| client.echoes(b"x")));
    assert!(!lesson.connect().is_silent(), "one more was let in");
    // One client leaves, and the next client is let in.
    clients.pop();
    while lesson.connect().line("x") != "x" {}
}

/// A client that sends `?` and a line end gets the number of clients.
#[test]
#[ignore = "an exercise"]
fn exercise_03() {
    let lesson = Lesson::start(3);
    let mut clients: Vec<Client> = (0..3).map(|_| lesson.connect()).collect();
    assert!(clients.iter_mut().all(|client| client.echoes(b"x")));
    clients[0].send(b"?\n");
    assert_eq!(clients[0].next_line(), "3");
}

/// A new client is greeted with `welcome`.
#[test]
#[ignore = "an exercise"]
fn exercise_04() {
    let lesson = Lesson::start(4);
    assert_eq!(lesson.connect().first_line(), "welcome");
}

/// Lesson 5 echoes all of 64 KB that are sent at once, as it reads until the socket is empty.
#[test]
#[ignore = "an exercise"]
fn exercise_05() {
    let lesson = Lesson::start(5);
    let mut client = lesson.connect();
    client.send(&[b'x'; 64 * 1024]);
    let mut came = 0;
    while !client.is_silent() {
        came += 1;
    }
    assert!(came >= 64 * 1024 - 1, "{came} bytes came back");
}

/// The server has at most 100 clients, as in exercise 2, but without a thread that could block.
#[test]
#[ignore = "an exercise"]
fn exercise_06() {
    let lesson = Lesson::start(6);
    let mut clients: Vec<Client> = (0..100).map(|_| lesson.connect()).collect();
    assert!(clients.iter_mut().all(|client| client.echoes(b"x")));
    assert!(!lesson.connect().is_silent(), "one more was let in");
}

/// A client that sends `quit` and a line end gets `bye`, and then the end of the stream.
#[test]
#[ignore = "an exercise"]
fn exercise_07() {
    let lesson = Lesson::start(7);
    let mut client = lesson.connect();
    client.send(b"quit\n");
    assert_eq!(client.next_line(), "bye");
    assert_eq!(client.receive(1), b"");
}

/// A client that has sent nothing for a second after it connected is closed; a client that has sent
/// something may be idle for ten seconds.
#[test]
#[ignore = "an exercise"]
fn exercise_08() {
    let lesson = Lesson::start(8);
    let (mut mute, mut known) = (lesson.connect(), lesson.connect());
    assert!(known.echoes(b"x"));
    assert_eq!(mute.receive(1), b"");
    assert!(known.echoes(b"x"), "closed with the other one");
}

/// The operator's port lets three clients in; a fourth client is closed at once.
#[test]
#[ignore = "an exercise"]
fn exercise_09() {
    let lesson = Lesson::start(9);
    let mut operators: Vec<Client> = (0..3).map(|_| Client::connect(lesson.operator)).collect();
    assert!(operators.iter_mut().all(|client| client.echoes(b"x")));
    assert!(
        !Client::connect(lesson.operator).is_silent(),
        "a fourth was let in"
    );
}

/// `DEL key` removes a key: the reply is `:1`, or `:0` if the key did not exist.
#[test]
#[ignore = "an exercise"]
fn exercise_10() {
    let lesson = Lesson::start(10);
    let mut client = lesson.connect();
    assert_eq!(client.line("SET k v"), "+OK");
    assert_eq!(client.line("DEL k"), ":1");
    assert_eq!(client.line("DEL k"), ":0");
}

/// The command `PENDING` replies with the number of PRIMES whose results are outstanding.
#[test]
#[ignore = "an exercise"]
fn exercise_11() {
    let lesson = Lesson::start(11);
    let (mut waits, mut other) = (lesson.connect(), lesson.connect());
    assert_eq!(other.line("PENDING"), ":0");
    waits.send(b"PRIMES 2000000\r\n");
    while other.line("PENDING") != ":1" {
        assert!(waits.is_silent(), "never one outstanding");
    }
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
    assert_eq!(client.line(&format!("MOVETO {} k", target.port)), "+OK");
    assert_eq!(client.line("GET k"), "$-1");
}

/// PING is answered while SPIN runs; all other commands are still refused.
#[test]
#[ignore = "an exercise"]
fn exercise_13() {
    let lesson = Lesson::start(13);
    let (mut waits, mut other) = (lesson.connect(), lesson.connect());
    waits.send(b"SPIN 60000\r\n");
    while !other.line("GET k").starts_with("-BUSY") {}
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
    assert_eq!(client.line("SAVES"), ":0");
    assert!(client.line("SAVE").starts_with(':'));
    assert_eq!(client.line("SAVES"), ":1");
}
