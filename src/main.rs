//! The program aeris-server: from the arguments to the running event loop.

use std::process::ExitCode;

use aeris::observe::logging;
use aeris::persist::loading;
use aeris::server::{cli, crash_report, record, shutdown, start, supervisor};
use aeris::state::Server;
use aeris::sync::role;
use aeris::sys::{process, tape};

fn main() -> ExitCode {
    crash_report::abort_on_panic();
    let argv: Vec<std::ffi::OsString> = std::env::args_os().collect();
    if let Some(tool) = cli::tool(&argv) {
        return tool;
    }
    if let Some(code) = cli::answer(&argv) {
        return code;
    }
    logging::start();
    let (mut config, renames) = match cli::configure(&argv) {
        Ok(configured) => configured,
        Err(code) => return code,
    };
    start::enter_background(&config);
    supervisor::begin(&config);
    start::announce(&config, argv.len() > 1);
    if let Err(code) = start::set_locale(&config).and_then(|()| start::load_modules(&config)) {
        return code;
    }
    start::limit_clients_to_open_files(&mut config);

    process::set_background_cpus(&config.bio_cpulist.to_str_lossy());
    if let Err(code) = record::begin(&config, &argv) {
        return code;
    }
    let mut server = Server::new(config, cli::lossy(&argv));
    start::rename_commands(&mut server, &renames);
    start::set_up_process(&mut server);
    if let Err(code) = start::load_users(&mut server) {
        return code;
    }
    if let Err(code) = start::join_cluster(&mut server) {
        return code;
    }
    let mut el = match start::listen(&mut server) {
        Ok(el) => el,
        Err(code) => return code,
    };
    role::begin(&mut server);
    let loaded = match tape::records() {
        true => record::load(&mut server),
        false => loading::start(&mut el, &mut server),
    };
    let ended = match loaded {
        Ok(()) => {
            supervisor::ready(&mut server);
            start::watch_for_crashes(&server);
            let ended = el.run(&mut server);
            start::unwatch_for_crashes();
            ended
        }
        // A signal or SHUTDOWN ended the server while it loaded the data set.
        Err(_) if server.shutdown.now => Ok(()),
        Err(code) => return code,
    };
    let code = shutdown::finish(&mut server, ended);
    // At exit the system takes the process's memory back at once; freeing the data set key by key
    // would take as long as loading it.
    std::mem::forget(server);
    code
}
