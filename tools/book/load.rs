//! The load of `make book-figures`: many connections, of which a few have a request outstanding.
//!
//!     load PORT CONNECTIONS SECONDS OUTSTANDING ...
//!
//! Each connection sends 6 bytes and waits until a server of the lessons has echoed them; then
//! another connection, chosen at random, sends the next request. There is one phase for each number
//! of outstanding requests. A phase begins with `ready` on the output and a line on the input, and
//! ends, when all replies have arrived, with the number of requests and the seconds.

use std::io::{self, ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};

const REQUEST: &[u8; 6] = b"PING\r\n";

struct Load {
    connections: Vec<TcpStream>,
    /// For each connection, whether it waits for its reply.
    waits: Vec<bool>,
    /// For each connection, the number of bytes of the reply that have arrived.
    received: Vec<usize>,
    epoll: Epoll,
    random: u64,
}

fn main() -> io::Result<()> {
    let numbers: Vec<u64> = std::env::args()
        .skip(1)
        .filter_map(|a| a.parse().ok())
        .collect();
    let [port, connections, seconds, phases @ ..] = &numbers[..] else {
        eprintln!("usage: load PORT CONNECTIONS SECONDS OUTSTANDING ...");
        std::process::exit(2);
    };
    let port = u16::try_from(*port).map_err(io::Error::other)?;
    let mut load = Load::connect(port, *connections as usize)?;
    for outstanding in phases {
        println!("ready");
        io::stdout().flush()?;
        io::stdin().read_line(&mut String::new())?;
        let began = Instant::now();
        let requests = load.run(*outstanding, Duration::from_secs(*seconds))?;
        println!("{requests} {}", began.elapsed().as_secs_f64());
    }
    Ok(())
}

impl Load {
    fn connect(port: u16, count: usize) -> io::Result<Load> {
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        let mut connections = Vec::with_capacity(count);
        for at in 0..count {
            let mut stream = TcpStream::connect(("127.0.0.1", port))?;
            stream.set_nodelay(true)?;
            stream.write_all(REQUEST)?;
            stream.read_exact(&mut [0; REQUEST.len()])?;
            epoll.add(&stream, EpollEvent::new(EpollFlags::EPOLLIN, at as u64))?;
            connections.push(stream);
        }
        Ok(Load {
            connections,
            waits: vec![false; count],
            received: vec![0; count],
            epoll,
            random: 20_240_229,
        })
    }

    /// Runs one phase of the load; returns the number of requests whose replies have arrived.
    fn run(&mut self, outstanding: u64, time: Duration) -> io::Result<u64> {
        let end = Instant::now() + time;
        let (mut sent, mut served) = (outstanding, 0);
        for _ in 0..outstanding {
            self.send_next()?;
        }
        let mut events = [EpollEvent::empty(); 64];
        while served < sent {
            let ready = self.epoll.wait(&mut events, EpollTimeout::NONE)?;
            let goes_on = Instant::now() < end;
            for event in &events[..ready] {
                if self.receive(event.data() as usize)? {
                    served += 1;
                    if goes_on {
                        self.send_next()?;
                        sent += 1;
                    }
                }
            }
        }
        Ok(served)
    }

    /// Sends a request on a random connection that does not wait for a reply.
    fn send_next(&mut self) -> io::Result<()> {
        loop {
            self.random = self
                .random
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            let at = (self.random >> 33) as usize % self.connections.len();
            if !self.waits[at] {
                self.waits[at] = true;
                return self.connections[at].write_all(REQUEST);
            }
        }
    }

    /// Reads bytes of a reply; returns whether the reply is complete.
    fn receive(&mut self, at: usize) -> io::Result<bool> {
        let mut reply = [0; REQUEST.len()];
        match self.connections[at].read(&mut reply)? {
            0 => Err(ErrorKind::UnexpectedEof.into()),
            n => {
                self.received[at] += n;
                let complete = self.received[at] == REQUEST.len();
                if complete {
                    self.received[at] = 0;
                    self.waits[at] = false;
                }
                Ok(complete)
            }
        }
    }
}
