//! Lesson 1: an echo server for one client at a time.
//!
//! The call of `read` waits until the client sends something. While `read` waits, and until this
//! client closes, the server does nothing else: the second client is connected by the kernel, and
//! is not served.
//!
//!     cargo run -p ae --example 01_blocking &    then    python3 ae/lessons/try.py 1

use std::io::{self, Read, Write};
use std::net::TcpStream;

mod parts;
use parts::port;

fn main() -> io::Result<()> {
    let listener = port::listen(1)?;
    for stream in listener.incoming() {
        serve(stream?);
    }
    Ok(())
}

/// Echoes until the client closes its connection, or the connection fails.
fn serve(mut stream: TcpStream) {
    let mut buffer = [0; 16 * 1024];
    while let Ok(n) = stream.read(&mut buffer) {
        if n == 0 || stream.write_all(&buffer[..n]).is_err() {
            return;
        }
    }
}
