//! The ports on which the lessons listen.

use std::io::{self, Write};
use std::net::TcpListener;

/// Listens on port 7000 + `lesson`, or on the port that is the program's first argument; for port 0
/// the kernel chooses one. Prints the address on which the lesson listens.
pub fn listen(lesson: u16) -> io::Result<TcpListener> {
    listen_on(port(lesson), lesson, "")
}

/// The operator's port: 100 above that of the clients.
pub fn listen_for_operator(lesson: u16) -> io::Result<TcpListener> {
    let port = match port(lesson) {
        0 => 0,
        port => port.saturating_add(100),
    };
    listen_on(port, lesson, " for the operator")
}

fn port(lesson: u16) -> u16 {
    let argument = std::env::args().nth(1);
    let port = argument.and_then(|arg| arg.parse().ok());
    port.unwrap_or(7000 + lesson)
}

fn listen_on(port: u16, lesson: u16, whom: &str) -> io::Result<TcpListener> {
    let listener = TcpListener::bind(("127.0.0.1", port))?;
    println!(
        "lesson {lesson} listens on {}{whom}",
        listener.local_addr()?
    );
    io::stdout().flush()?;
    Ok(listener)
}
