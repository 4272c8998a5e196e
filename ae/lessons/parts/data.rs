//! What lesson 10 taught: the commands of a data set.

use std::collections::HashMap;

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
        _ => resp::error("unknown command, or wrong number of arguments"),
    }
}
