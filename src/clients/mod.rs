//! Operations on clients that many other modules need: describing a client, counting its memory,
//! and closing it when its replies pile up. `src/client/` holds the data of clients and does not
//! use `Server`; `src/clients/` does.

pub mod describe;
pub mod memory;
pub mod output_limit;

use crate::state::Server;

impl Server {
    /// How often the server's periodic job, the cron, runs in a second: `hz`, or more with many
    /// clients if `dynamic-hz` allows it.
    pub fn effective_hz(&self) -> u32 {
        let mut hz = self.config.hz.clamp(1, 500);
        while self.config.dynamic_hz && hz < 500 && self.net.clients.len() / hz as usize > 200 {
            hz *= 2;
        }
        hz.min(500)
    }
}
