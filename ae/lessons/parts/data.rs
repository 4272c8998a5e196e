//! The code of lesson 10: the commands of a data set. PRIMES needs no data; it is in `worker.rs`.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use super::resp;

pub type Data = HashMap<Vec<u8>, Vec<u8>>;

/// Executes a command of the data set; the reply to an unknown command is an error.
pub fn execute(data: &mut Data, name: &[u8], args: &[Vec<u8>]) -> Vec<u8> {
    match (name, args) {
        (b"ping", []) => resp::status("PONG"),
        (b"get", [key]) => resp::bulk(data.get(key).map(Vec::as_slice)),
        (b"set", [key, value]) => {
            data.insert(key.clone(), value.clone());
            resp::status("OK")
        }
        (b"spin", [ms]) => match resp::number(ms, 60_000) {
            Ok(ms) => resp::integer(spin(ms as u64)),
            Err(_) => resp::error("no number, or too large"),
        },
        _ => resp::error("unknown command, or wrong number of arguments"),
    }
}

/// Reads the clock for `ms` milliseconds without a pause; returns the number of readings.
fn spin(ms: u64) -> u64 {
    let end = Instant::now() + Duration::from_millis(ms);
    (0..).take_while(|_| Instant::now() < end).count() as u64
}
