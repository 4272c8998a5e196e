//! The TLS materials in use (`Materials`: certificates, keys, settings), and their replacement by a
//! thread.
//!
//! ```text
//!   cron: due, or SIGHUP ─> load_in_background ─> thread: Materials::load ─> take_loaded
//! ```
//!
//! Reading certificates may wait for a disk or a network file system, so a reload that no client
//! waits for runs on a thread of its own.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, TryRecvError};
use std::thread;

use super::{Inputs, Materials};
use crate::connection::{Connection, State};

/// The result of loading: the materials, or a line for the log.
pub type Loaded = Result<Materials, String>;

/// The state of TLS in the server.
#[derive(Default)]
pub struct Current {
    /// The materials that new connections use; `None` while no setting needs TLS.
    pub materials: Option<Arc<Materials>>,
    /// The time in milliseconds at which the files of the certificates are read again
    /// (`tls-auto-reload-interval`).
    pub due_ms: i64,
    loading: Option<Receiver<Loaded>>,
}

impl Current {
    /// The materials for a new connection. Fails while no setting needs TLS.
    pub fn needed(&self) -> io::Result<&Materials> {
        let missing = || io::Error::other("TLS is not configured");
        self.materials.as_deref().ok_or_else(missing)
    }

    /// Continues an outgoing connection: the connect, then, if `secure` has an address, the TLS
    /// handshake with the server at this address. After an error `conn` may be `None`, as the
    /// connection is moved while TLS is added to it.
    pub fn advance(
        &self,
        conn: &mut Option<Connection>,
        secure: Option<SocketAddr>,
    ) -> io::Result<State> {
        let Some(connecting) = conn else {
            return Ok(State::Connecting);
        };
        if let (State::Open, Some(address), None) =
            (connecting.finish_connect()?, secure, connecting.session())
        {
            let materials = self.needed()?;
            if let Some(plain) = conn.take() {
                *conn = Some(plain.secure(materials, address)?);
            }
        }
        conn.as_mut()
            .map_or(Ok(State::Connecting), Connection::handshake)
    }

    /// Starts to load materials on a thread, unless such a load runs already.
    pub fn load_in_background(&mut self, inputs: Inputs) -> io::Result<()> {
        if self.loading.is_some() {
            return Ok(());
        }
        let (send, receive) = mpsc::channel();
        thread::Builder::new()
            .name("tls-reload".into())
            .spawn(move || {
                // Sending fails if CONFIG SET has loaded materials since this load began; the
                // result is not needed then.
                let _ = send.send(Materials::load(&inputs));
            })?;
        self.loading = Some(receive);
        Ok(())
    }

    /// The result of the load on a thread, if the load has ended.
    pub fn take_loaded(&mut self) -> Option<Loaded> {
        match self.loading.as_ref()?.try_recv() {
            Ok(loaded) => {
                self.loading = None;
                Some(loaded)
            }
            Err(TryRecvError::Empty) => None,
            Err(TryRecvError::Disconnected) => {
                self.loading = None;
                Some(Err("the thread that loads TLS materials has ended".into()))
            }
        }
    }

    /// Uses `materials` for new connections from now on; the result of a load that still runs on a
    /// thread is dropped.
    pub fn replace(&mut self, materials: Materials) {
        self.materials = Some(Arc::new(materials));
        self.loading = None;
    }
}
