//! The I/O of all sockets: accepts connections, reads and parses requests, sends replies.
//!
//! ```text
//! ae poll -> accept_handler -> create_client
//!                             with TLS: handshakes::begin -> create_client
//! readable -> read_query_from_client -> process_input_buffer -> resp::parse -> argv (slices of the buffer)
//!          -> process_command -> call -> commands::string::set -> db.set
//!          -> reply appended to client.reply
//! before_sleep -> handle_clients_with_pending_writes -> write_to_client
//!              -> write_to_replicas -> write_stream
//! accept_handler -> for the monitor port: http::accept -> request::parse -> metrics::render
//! link::open -> connect -> write_handler, read_handler -> Link::step -> the owner's handler
//! ```
//!
//! **Invariant:** an idle client holds neither a query buffer nor a reply buffer: requests are read
//! into one buffer that all clients share, and reply buffers are lent from a pool
//! (`clients::tests`; `tests/robustness.rs` measures the memory of idle clients).

pub mod accept;
pub mod bus;
pub mod close;
pub mod evict_clients;
pub mod handshakes;
pub mod http;
pub mod link;
pub mod migrate;
mod prefetch;
pub mod primary;
pub mod query;
pub mod replicas;
pub mod slots;
pub mod write;
