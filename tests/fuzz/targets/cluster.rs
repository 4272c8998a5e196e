//! The packets of the cluster bus, and nodes.conf.

use aeris::cluster::config_file::NodesConf;
use aeris::cluster::packet::{Message, frame_len};

/// A packet that is accepted encodes to its length, and to itself from then on.
pub fn bus(bytes: &[u8]) {
    let Ok(message) = Message::parse(bytes) else {
        return;
    };
    assert_eq!(frame_len(bytes), Ok(Some(bytes.len())));
    assert_eq!(message.encoded_len(), bytes.len());
    let mut again = Vec::new();
    message.encode(&mut again);
    assert_eq!(again.len(), bytes.len());
    assert_eq!(Message::parse(&again), Ok(message));
}

/// A file that is accepted is the same after it was written and read.
pub fn nodes_conf(bytes: &[u8]) {
    let Ok(conf) = NodesConf::parse(bytes) else {
        return;
    };
    let text = conf.render();
    assert_eq!(NodesConf::parse(text.as_bytes()), Ok(conf));
    let cut = text.trim_end().len();
    assert!(NodesConf::parse(&text.as_bytes()[..cut]).is_err());
}
