//! Derives the settings of the cluster's state machine from those of the server.

use crate::cluster::event::{Address, Settings, Texts};
use crate::cluster::name::Ip;
use crate::config::{Config, Text};

/// The number that is added to the port for clients to get the port of the cluster bus.
pub const BUS_PORT_DISTANCE: u16 = 10_000;

/// The settings of the cluster's state machine.
pub fn of(config: &Config) -> Settings {
    let seconds = |s: i64| s.max(0).unsigned_abs().saturating_mul(1000);
    Settings {
        node_timeout_ms: config.cluster_node_timeout.max(1),
        ping_interval_ms: config.cluster_ping_interval,
        validity_factor: config.cluster_replica_validity_factor.into(),
        repl_ping_ms: u64::from(config.repl_ping_replica_period) * 1000,
        migration_barrier: config.cluster_migration_barrier as usize,
        allow_replica_migration: config.cluster_allow_replica_migration,
        full_coverage: config.cluster_require_full_coverage,
        no_failover: config.cluster_replica_no_failover,
        manual_timeout_ms: config.cluster_manual_failover_timeout.into(),
        blacklist_ms: seconds(config.cluster_blacklist_ttl),
        gossip_percent: config.cluster_message_gossip_perc as usize,
        tls_cluster: config.tls_cluster,
        announced: announced(config),
        texts: texts(config),
        words: config.words(),
    }
}

/// The port on which this node listens for the cluster bus, without regard to announced ports;
/// `None` if it is above 65,535.
pub fn bus_port(config: &Config) -> Option<u16> {
    let base = match config.tls_cluster {
        true => config.tls_port,
        false => config.port,
    };
    match config.cluster_port {
        0 => base.checked_add(BUS_PORT_DISTANCE),
        port => Some(port),
    }
}

fn announced(config: &Config) -> Address {
    let or = |announced: u16, own: u16| if announced != 0 { announced } else { own };
    Address {
        ip: Ip::parse(config.cluster_announce_ip.as_bytes()).unwrap_or_default(),
        tcp_port: or(config.cluster_announce_port, config.port),
        tls_port: or(config.cluster_announce_tls_port, config.tls_port),
        bus_port: or(
            config.cluster_announce_bus_port,
            bus_port(config).unwrap_or(0),
        ),
    }
}

fn texts(config: &Config) -> Texts {
    let text = |text: &Text| (!text.is_empty()).then(|| text.as_bytes().into());
    Texts {
        host_name: text(&config.cluster_announce_hostname),
        human_name: text(&config.cluster_announce_human_nodename),
        zone: text(&config.availability_zone),
        client_ipv4: text(&config.cluster_announce_client_ipv4),
        client_ipv6: text(&config.cluster_announce_client_ipv6),
        client_port: config.cluster_announce_client_port,
        client_tls_port: config.cluster_announce_client_tls_port,
        other: Vec::new(),
    }
}
