//! The AUX fields of a snapshot, which are names and values about the file as a whole.
//!
//! ```text
//!   redis-ver valkey-ver ctime used-mem         a line of the log
//!   repl-id repl-offset repl-stream-db          the position in a replication history
//!   slot-import, cluster-slot-states            slots that move to the server, or from it
//! ```

use super::{Establish, Keyspace, texts};
use crate::cluster::moves::OPEN_SLOTS_FIELD;
use crate::persist::rdb::save::SLOT_IMPORT_FIELD;
use crate::persist::rdb::{Position, is_history_id};

/// The values of the AUX fields `repl-id`, `repl-offset` and `repl-stream-db`, which make up a
/// [`Position`].
#[derive(Default)]
pub(super) struct HistoryFields {
    id: Option<String>,
    offset: Option<u64>,
    db: Option<u32>,
}

impl HistoryFields {
    pub(super) fn note(&mut self, name: &[u8], text: &str) {
        match name {
            b"repl-id" => self.id = Some(text.into()).filter(|id: &String| is_history_id(id)),
            b"repl-offset" => self.offset = text.parse().ok(),
            _ => self.db = text.parse().ok(),
        }
    }

    /// The position in a replication history that the fields describe. Old servers wrote the
    /// database -1 when no database was selected; `repl-id` and `repl-offset` are then useless.
    pub(super) fn position(&self) -> Option<Position> {
        Some(Position {
            id: self.id.clone()?,
            offset: self.offset?,
            db: self.db?,
        })
    }
}

impl Keyspace<'_, '_> {
    /// Handles an AUX field of the snapshot that is loaded. An AUX field with an unknown name is
    /// logged.
    pub(super) fn read_aux(&mut self, name: &[u8], value: &[u8]) {
        let text = String::from_utf8_lossy(value);
        let number = text.parse::<i64>().unwrap_or(0);
        match name {
            b"redis-ver" => {
                let words = self.live.borrow().server.config.words();
                log::info!(
                    "{}",
                    texts::LOG_RDB_BY_REDIS.fill(words, &[("version", &text)])
                );
            }
            b"valkey-ver" => log::info!("Loading RDB produced by Valkey version {text}"),
            b"ctime" => {
                let age = (self.now_ms / 1000 - number).max(0);
                log::info!("RDB age {age} seconds");
            }
            b"used-mem" => {
                log::info!(
                    "RDB memory usage when created {:.2} Mb",
                    number as f64 / (1024.0 * 1024.0)
                );
                self.live.borrow_mut().server.load.rdb_used_mem = number.max(0) as u64;
            }
            OPEN_SLOTS_FIELD if self.options.of_primary => {
                self.live.borrow_mut().server.follow_open_slots(&text);
            }
            // In a file that this server itself has written, the field with the slots that are
            // being moved is ignored: nodes.conf has the slots that are being moved.
            OPEN_SLOTS_FIELD => {}
            SLOT_IMPORT_FIELD => {
                if let Some(import) = Establish::of_field(&text) {
                    self.live.borrow_mut().server.follow_import(&import);
                }
            }
            b"aof-preamble" if number != 0 => log::info!("RDB has an AOF tail"),
            b"aof-base" if number != 0 => log::info!("RDB is base AOF"),
            b"aof-preamble" | b"aof-base" | b"redis-bits" => {}
            b"repl-stream-db" | b"repl-id" | b"repl-offset" => self.history.note(name, &text),
            // The field `lua` has a script of EVAL, which Redis stored in snapshots before version
            // 7; such scripts are not kept.
            b"lua" => {}
            name => log::debug!(
                "Unrecognized RDB AUX field: '{}' '{text}'",
                name.escape_ascii()
            ),
        }
    }
}
