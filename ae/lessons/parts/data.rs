//! What lesson 10 taught: the commands of a data set. PRIMES is not here, since it needs no data:
//! lesson 11.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use super::resp;

pub type Data = HashMap<Vec<u8>, Vec<u8>>;

/// Executes a command of the data set; any other one is an error.
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

/// Works for `ms` milliseconds; returns how often it looked at the clock.
fn spin(ms: u64) -> u64 {
    let end = Instant::now() + Duration::from_millis(ms);
    (0..).take_while(|_| Instant::now() < end).count() as u64
}
