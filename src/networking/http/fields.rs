//! Reads the fields of INFO by name, so that the monitor port shows the same figures as INFO.

use std::collections::HashMap;

use crate::client::Client;
use crate::commands::server::info::info;
use crate::state::Server;

/// The fields of all sections of INFO.
pub struct Fields {
    text: String,
}

impl Fields {
    /// Reads all fields of INFO.
    pub fn take(server: &mut Server) -> Fields {
        let asks = Client::detached(0, server.clock.now_ms);
        Fields {
            text: info(server, &asks, &[b"all"]),
        }
    }

    /// Iterates over the names of all fields with their values, in INFO's order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.text.lines().filter_map(|line| line.split_once(':'))
    }

    /// A map from the names of the fields to their values.
    pub fn by_name(&self) -> HashMap<&str, &str> {
        self.iter().collect()
    }
}

/// The part `name` of an INFO field's value such as `calls=1,usec=5`; an empty text if the value
/// has no such part.
pub fn part<'a>(value: &'a str, name: &str) -> &'a str {
    let mut parts = value.split(',').filter_map(|part| part.split_once('='));
    parts
        .find(|(key, _)| *key == name)
        .map_or("", |(_, text)| text)
}
