//! Verbs on clients that every feature above needs: describing one, counting what it holds, and
//! closing it when its replies pile up. `client` is the data and knows no `Server`; this room does.

pub mod describe;
pub mod memory;
pub mod output_limit;

use crate::state::Server;

impl Server {
    /// `hz`, more often when there are many clients and `dynamic-hz` allows it: cron calls for each
    /// second.
    pub fn effective_hz(&self) -> u32 {
        let mut hz = self.config.hz.clamp(1, 500);
        while self.config.dynamic_hz && hz < 500 && self.net.clients.len() / hz as usize > 200 {
            hz *= 2;
        }
        hz.min(500)
    }
}
