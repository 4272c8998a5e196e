//! `/healthz`: whether the server can do its work, for a load balancer or an orchestrator.
//!
//! ```text
//!   200 {"status":"ok","role":"master","problems":[]}
//!   503 {"status":"loading", ...}      the data set is being loaded: wait
//!   503 {"status":"degraded", ...}     commands are refused, or a replica has no link: see problems
//! ```
//!
//! **Limit:** the reply of `/healthz` is the state at the moment of the request; a server that does
//! not reply within the time-out of the load balancer is not healthy either.

use serde_json::{Value, json};

use super::fields::Fields;
use super::request::Status;
use crate::keyspace::evict;
use crate::state::Server;

/// The HTTP status and the JSON body of the reply to `/healthz`.
pub fn report(fields: &Fields, server: &Server) -> (Status, String) {
    let config = &server.config;
    let by_name = fields.by_name();
    let text = |name: &str| by_name.get(name).copied().unwrap_or_default();
    let loading = text("loading") == "1";
    let replica = text("role") == "slave";
    let mut problems = Vec::new();
    if text("aof_last_write_status") == "err" {
        problems.push("the AOF can't be written, so writes are refused");
    }
    let saves_fail = text("rdb_last_bgsave_status") == "err" && !config.save.is_empty();
    if saves_fail && config.stop_writes_on_bgsave_error {
        problems.push("the last save failed, so writes are refused");
    }
    if replica && text("master_link_status") != "up" {
        problems.push("the link to the primary is down");
    }
    let good_replicas = text("min_slaves_good_slaves").parse::<u32>();
    if good_replicas.is_ok_and(|good| good < config.min_replicas_to_write) {
        problems.push("too few good replicas, so writes are refused");
    }
    if evict::refuses_writes(server) {
        problems.push("the memory is above maxmemory, so writes are refused");
    }
    if server.scripting.running.is_some() {
        problems
            .push("a script runs for longer than busy-reply-threshold, so commands are refused");
    }
    if let Some(member) = &server.cluster
        && !member.machine.is_up()
    {
        problems.push("the cluster is down, so commands are refused");
    }
    let status = match (loading, problems.is_empty()) {
        (true, _) => "loading",
        (false, true) => "ok",
        (false, false) => "degraded",
    };
    let mut body = json!({
        "status": status,
        "role": text("role"),
        "loading": loading,
        "problems": problems,
    });
    if replica {
        let seconds = text("master_last_io_seconds_ago").parse::<i64>();
        body["replica_lag_seconds"] = seconds.map_or(Value::Null, Value::from);
    }
    let code = match status {
        "ok" => Status::Ok,
        _ => Status::Unavailable,
    };
    (code, format!("{body}\n"))
}
