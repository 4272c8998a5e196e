//! aeris-server: settings, sockets, loop.

use aeris::config::Config;
use aeris::networking::accept;
use aeris::server::{init, shutdown};
use aeris::state::Server;

fn main() {
    let argv: Vec<String> = std::env::args().collect();
    let mut config = Config::default();
    if let Some(at) = argv.iter().position(|a| a == "--port") {
        config.port = argv[at + 1].parse().unwrap();
    }
    let mut server = Server::new(config, argv);
    if let Err(e) = accept::listen(&mut server) {
        eprintln!("{e}");
        std::process::exit(1);
    }
    let mut el = init::event_loop(&mut server).expect("loop");
    if let Err(e) = el.run(&mut server) {
        eprintln!("{e}");
    }
    shutdown::finish(&mut server);
}
