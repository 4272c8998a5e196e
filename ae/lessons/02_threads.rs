//! Lesson 2: a thread for each client.
//!
//! Lesson 1 served one client at a time. Here each client has a thread that waits for it. Threads
//! serve many clients with no change to `serve`; the price is a stack and a scheduler's entry for
//! each idle client, and, as soon as two clients share data, a lock round the data.
//!
//!     cargo run -p ae --example 02_threads &    then    python3 ae/lessons/try.py 2

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::thread;

mod parts;
use parts::port;

fn main() -> io::Result<()> {
    let listener = port::listen(2)?;
    for stream in listener.incoming() {
        let stream = stream?;
        thread::spawn(move || serve(stream));
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
