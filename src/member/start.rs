//! Makes the server a node of a cluster when the process starts: locks and reads nodes.conf, or
//! creates the file.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use super::settings;
use crate::cluster::Cluster;
use crate::cluster::config_file::NodesConf;
use crate::config::Config;
use crate::config::enums::HostPort;
use crate::state::Server;
use crate::sys::error_text;

/// Loads or creates nodes.conf. Returns an error as the text that the server logs before it exits.
pub fn start(server: &mut Server) -> Result<(), String> {
    let Some(member) = server.cluster.as_deref_mut() else {
        return Ok(());
    };
    check_ports(&server.config)?;
    let name = server
        .config
        .cluster_config_file
        .to_str_lossy()
        .into_owned();
    let random = server.rng.split();
    let path = std::path::absolute(server.config.cluster_config_file.as_path());
    let path = path.map_err(|e| format!("Can't find {name}: {}", error_text(&e)))?;
    let (lock, text) = open(&path, &name)?;
    member.disk.set_file(path, lock);
    let now = member.now();
    if text.is_empty() {
        log::info!(
            "No cluster configuration found, I'm {}",
            member.machine.myself().name
        );
    } else {
        let conf = NodesConf::parse(&text).map_err(|problem| {
            log::warn!("{name}: {problem}");
            "Unrecoverable error: corrupted cluster config file.".to_string()
        })?;
        member.machine = Cluster::load(now, settings::of(&server.config), random, &conf);
        server.config.replicaof = primary_of(&member.machine, server.config.tls_replication);
        log::info!(
            "Node configuration loaded, I'm {}",
            member.machine.myself().name
        );
    }
    let text = member.machine.conf(now).render();
    member.disk.write_now(&text).map_err(|e| {
        log::warn!("Can't write {name}: {}", error_text(&e));
        "Fatal: can't update cluster config file.".to_string()
    })
}

/// The address of this node's primary; `None` if the node has no primary, or the primary's address
/// is not known.
fn primary_of(machine: &Cluster, tls: bool) -> Option<HostPort> {
    let primary = machine.myself().replica_of?;
    let address = &machine.nodes()[primary].address;
    let port = if tls {
        address.tls_port
    } else {
        address.tcp_port
    };
    let known = !address.ip.is_empty() && port != 0;
    known.then(|| HostPort {
        host: address.ip.as_str().into(),
        port,
    })
}

fn check_ports(config: &Config) -> Result<(), String> {
    if config.bind.is_empty() {
        return Err(
            "No bind address is configured, but it is required for the Cluster bus.".into(),
        );
    }
    match settings::bus_port(config) {
        Some(_) => Ok(()),
        None => Err(
            "Redis port number too high for cluster mode. Cluster communication port, which is 10,000 port numbers \
             higher than your Redis port. Your Redis port number must be 55535 or less."
                .into(),
        ),
    }
}

/// Opens or creates nodes.conf, locks it, and reads it.
fn open(path: &Path, name: &str) -> Result<(File, Vec<u8>), String> {
    let failed = |what: &str, e: io::Error| format!("{what} {name}: {}", error_text(&e));
    loop {
        let mut options = OpenOptions::new();
        let opened = options.read(true).append(true).create(true).open(path);
        let mut file = opened.map_err(|e| {
            let reason = error_text(&e);
            format!("Can't open {name} in order to acquire a lock: {reason}")
        })?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(format!(
                    "Sorry, the cluster configuration file {name} is already used by a different Redis Cluster node. \
                     Please make sure that different nodes use different cluster configuration files."
                ));
            }
            Err(TryLockError::Error(e)) => return Err(failed("Impossible to lock", e)),
        }
        // Another server may have replaced nodes.conf between its opening and its locking.
        if !is_at(&file, path) {
            continue;
        }
        let mut text = Vec::new();
        let read = file.read_to_end(&mut text);
        read.map_err(|e| failed("Can't read", e))?;
        return Ok((file, text));
    }
}

fn is_at(file: &File, path: &Path) -> bool {
    let identity = |meta: std::fs::Metadata| (meta.dev(), meta.ino());
    let [here, there] = [file.metadata(), std::fs::metadata(path)].map(|meta| meta.map(identity));
    matches!((here, there), (Ok(here), Ok(there)) if here == there)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A server that listens on a unix socket alone, as one of Valkey's Tcl suite, starts without
    /// `bind` unless it is a cluster node.
    #[test]
    fn a_server_that_is_no_node_needs_no_address() {
        let mut server = crate::testing::server_with(0);
        server.config.bind.clear();
        assert_eq!(start(&mut server), Ok(()));
        assert!(check_ports(&server.config).is_err());
    }
}
