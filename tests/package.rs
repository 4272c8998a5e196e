//! The man pages of the package, and the scripts of the Debian package, in a root of their own
//! (`DPKG_ROOT`). `systemctl` and Debian's helpers change the links of units there; programs that
//! need a running system are replaced, and what they are asked to do is recorded.
#![cfg(target_os = "linux")]

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

const SCRIPTS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tools/package");

/// Stands for systemctl: records what would start or stop a unit, and leaves links to systemctl.
const SYSTEMCTL: &str = r#"#!/bin/sh
for word in "$@"; do
    case $word in
    start | stop | restart | try-restart) echo "$word" >> "$DPKG_ROOT/actions"; exit 0 ;;
    is-active) exit 3 ;;
    daemon-reload) exit 0 ;;
    --root=*) exec /usr/bin/systemctl "$@" ;;
    esac
done
exec /usr/bin/systemctl --root="$DPKG_ROOT" "$@"
"#;

/// A root in which the package's units are, and Debian's unit of Redis.
struct Root {
    path: PathBuf,
    /// Whether Debian's helpers are found.
    helpers: bool,
}

impl Root {
    /// `None` on a machine without systemctl or without Debian's helpers.
    fn new(name: &str, helpers: bool) -> Option<Root> {
        if !Path::new("/usr/bin/systemctl").exists()
            || !Path::new("/usr/bin/deb-systemd-helper").exists()
        {
            eprintln!("no systemctl or no deb-systemd-helper: the scripts are not tested");
            return None;
        }
        let name = format!("aeris-package-{}-{name}-{helpers}", std::process::id());
        let path = std::env::temp_dir().join(name);
        let _ = fs::remove_dir_all(&path);
        let units = "usr/lib/systemd/system";
        for dir in ["run/systemd/system", "etc/aeris/conf.d", "usr/bin", units] {
            fs::create_dir_all(path.join(dir)).expect("a folder");
        }
        symlink("usr/lib", path.join("lib")).expect("a link");
        let units = path.join(units);
        let unit = format!("{SCRIPTS}/aeris.service");
        fs::copy(unit, units.join("aeris.service")).expect("the unit");
        let redis = "[Service]\nExecStart=/bin/true\n[Install]\nWantedBy=multi-user.target\nAlias=redis.service\n";
        fs::write(units.join("redis-server.service"), redis).expect("a unit");
        let root = Root { path, helpers };
        root.stub("systemctl", SYSTEMCTL);
        for name in ["systemd-sysusers", "chown", "install"] {
            root.stub(name, "#!/bin/sh\n");
        }
        Some(root)
    }

    fn stub(&self, name: &str, text: &str) {
        let path = self.path.join("usr/bin").join(name);
        fs::write(&path, text).expect("a file");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("a mode");
    }

    fn run(&self, command: &mut Command) -> Output {
        // Without Debian's helpers: a folder of links to the programs that the scripts need.
        let mut search = self.path.join("usr/bin").display().to_string();
        match self.helpers {
            true => search += ":/usr/bin:/bin",
            false => {
                for name in ["sh", "chmod", "find", "rm", "readlink"] {
                    let link = self.path.join("usr/bin").join(name);
                    let _ = symlink(format!("/usr/bin/{name}"), link);
                }
            }
        }
        command.env("PATH", search).env("DPKG_ROOT", &self.path);
        command.env("DPKG_MAINTSCRIPT_PACKAGE", "aeris");
        command.output().expect("it runs")
    }

    /// Runs a script of the package, which must succeed. Returns the services that the script has
    /// started or stopped, and the script's messages.
    fn script(&self, name: &str, args: &[&str]) -> (String, String) {
        let actions = self.path.join("actions");
        let _ = fs::remove_file(&actions);
        let mut command = Command::new("/bin/sh");
        let out = self.run(command.arg(format!("{SCRIPTS}/{name}")).args(args));
        assert!(out.status.success(), "{name} {args:?}: {out:?}");
        let actions = fs::read_to_string(actions).unwrap_or_default();
        let messages = String::from_utf8_lossy(&out.stderr).into_owned();
        (actions.trim().replace('\n', " "), messages)
    }

    fn actions(&self, name: &str, args: &[&str]) -> String {
        self.script(name, args).0
    }

    fn systemctl(&self, args: &[&str]) -> String {
        let out = self.run(Command::new(self.path.join("usr/bin/systemctl")).args(args));
        String::from_utf8_lossy(&out.stdout).trim().into()
    }

    fn is_enabled(&self) -> bool {
        self.systemctl(&["is-enabled", "aeris.service"]) == "enabled"
    }
}

impl Drop for Root {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.path);
    }
}

#[test]
fn man_pages_have_the_usage_of_each_program() {
    for program in [
        env!("CARGO_BIN_EXE_aeris-server"),
        env!("CARGO_BIN_EXE_aeris-check-rdb"),
        env!("CARGO_BIN_EXE_aeris-check-aof"),
    ] {
        let script = format!("{SCRIPTS}/man_page.sh");
        let out = Command::new(script).args([program, "1.2"]).output();
        let out = out.expect("it runs");
        assert!(out.status.success() && out.stderr.is_empty(), "{out:?}");
        let page = String::from_utf8_lossy(&out.stdout);
        let name = Path::new(program).file_name().expect("a name");
        let name = name.to_string_lossy().replace('-', "\\-");
        assert!(
            page.contains(&format!("Usage: ./{name} "))
                || page.contains(&format!("Usage: {name} ")),
            "{page}"
        );
        assert!(page.contains("\\-\\-version"), "{page}");
        assert!(!page.contains("annot") && !page.contains("rror"), "{page}");
    }
}

#[test]
fn the_checkers_have_help_and_a_version() {
    for (program, version) in [
        (env!("CARGO_BIN_EXE_aeris-check-rdb"), "redis-check-rdb "),
        (env!("CARGO_BIN_EXE_aeris-check-aof"), "redis-check-aof "),
    ] {
        for (option, start) in [
            ("--help", "Usage: aeris-check-"),
            ("-h", "Usage: aeris-check-"),
            ("--version", version),
            ("-v", version),
        ] {
            let out = Command::new(program).arg(option).output();
            let out = out.expect("it runs");
            assert!(out.status.success() && out.stderr.is_empty(), "{out:?}");
            let text = String::from_utf8_lossy(&out.stdout);
            assert!(text.starts_with(start), "{text}");
        }
    }
}

/// Runs `test` with Debian's helpers and without.
fn in_roots(name: &str, test: impl Fn(&Root)) {
    for helpers in [true, false] {
        if let Some(root) = Root::new(name, helpers) {
            test(&root);
        }
    }
}

#[test]
fn an_installation_enables_and_starts_the_service_and_an_upgrade_restarts_it() {
    in_roots("install", |root| {
        assert_eq!(root.actions("postinst", &["configure", ""]), "start");
        assert!(root.is_enabled());
        assert_eq!(root.actions("postinst", &["configure", "0.1.0"]), "restart");
        assert!(root.is_enabled());
    });
}

/// dpkg passes the old version to the installation of a package that was removed but not purged.
#[test]
fn an_installation_after_a_removal_starts_the_service() {
    in_roots("again", |root| {
        root.actions("postinst", &["configure", ""]);
        assert_eq!(root.actions("prerm", &["remove"]), "stop");
        root.actions("postrm", &["remove"]);
        assert_eq!(root.actions("postinst", &["configure", "0.1.0"]), "restart");
        assert!(root.is_enabled());
    });
}

#[test]
fn an_upgrade_does_not_enable_a_disabled_service() {
    in_roots("disabled", |root| {
        root.actions("postinst", &["configure", ""]);
        root.systemctl(&["disable", "aeris.service"]);
        let actions = root.actions("postinst", &["configure", "0.1.0"]);
        // A disabled service that was started by hand is started again.
        assert!(["", "try-restart"].contains(&actions.as_str()), "{actions}");
        assert!(!root.is_enabled());
    });
}

/// The unit of Debian's redis-server has the same alias, redis.service.
#[test]
fn an_enabled_redis_server_does_not_fail_the_installation() {
    in_roots("alias", |root| {
        root.systemctl(&["enable", "redis-server.service"]);
        let (_, messages) = root.script("postinst", &["configure", ""]);
        assert!(
            messages.contains("systemctl disable --now redis-server"),
            "{messages}"
        );
        root.actions("postinst", &["configure", "0.1.0"]);
        let link = fs::read_link(root.path.join("etc/systemd/system/redis.service"));
        assert!(link.expect("a link").ends_with("redis-server.service"));
    });
}

#[test]
fn a_purge_removes_the_links_of_the_service() {
    in_roots("purge", |root| {
        root.actions("postinst", &["configure", ""]);
        root.actions("prerm", &["remove"]);
        root.actions("postrm", &["remove"]);
        root.actions("postrm", &["purge"]);
        let units = root.path.join("etc/systemd/system");
        for link in ["redis.service", "multi-user.target.wants/aeris.service"] {
            assert!(units.join(link).symlink_metadata().is_err(), "{link}");
        }
        assert!(!root.path.join("etc/aeris").exists());
    });
}
