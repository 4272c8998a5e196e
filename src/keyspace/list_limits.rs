//! The settings that decide how a list is encoded.

use crate::state::Server;
use crate::types::list::ListLimits;

/// The settings, and the DEBUG option, that decide how lists are encoded.
pub fn list_limits(server: &Server) -> ListLimits {
    ListLimits {
        fill: server.config.list_max_listpack_size,
        compress_depth: server.config.list_compress_depth,
        packed_threshold: server.debug.packed_threshold,
    }
}
