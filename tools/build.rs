//! Stops a build in which LuaJIT would end the process at the first error of a script.
//!
//! LuaJIT throws its errors either by unwinding like C++, or by its own jump. This crate aborts on
//! panic, so nothing may unwind through its frames: LuaJIT must be built with `-DLUAJIT_NO_UNWIND`.
//! mlua's `vendored` build runs LuaJIT's own Makefile, which reads such flags from the variable
//! TARGET_FLAGS; `.cargo/config.toml` sets it with `force`, since no other tool reads a variable of
//! this name. (CFLAGS and TARGET_CFLAGS, which users may set, are not changed.)
//!
//! Cargo reads `.cargo/config.toml` only when it runs inside this tree. `cargo install --git`, a
//! vendoring tool or a distribution's build don't, and would build a server that crashes on the
//! `redis.call` of an unknown command. A build script can't set the environment of another crate's
//! build, so it checks the variable and prints what to do.
//!
//! A LuaJIT that was built without the flag is not built again when the flag is set, since cargo
//! does not know that LuaJIT depends on the variable. Such a build lies beside this script's own
//! output; it is recognised by a function that only unwinding like C++ needs.

use std::fs;
use std::path::{Path, PathBuf};

const FLAG: &str = "-DLUAJIT_NO_UNWIND";
/// The variables from which LuaJIT's Makefile takes flags.
const VARIABLES: [&str; 2] = ["TARGET_FLAGS", "TARGET_CFLAGS"];

fn main() {
    println!("cargo::rerun-if-changed=tools/build.rs");
    for variable in VARIABLES {
        println!("cargo::rerun-if-env-changed={variable}");
    }
    let has_flag = |variable: &&str| {
        let flags = std::env::var(variable).unwrap_or_default();
        flags.split_whitespace().any(|flag| flag == FLAG)
    };
    let has_flag = VARIABLES.iter().any(has_flag);
    if has_flag && built_before().is_none_or(|library| !throws_by_unwinding(&library)) {
        return;
    }
    println!(
        "cargo::error=LuaJIT must be built with {FLAG}, else the server aborts at the first error in a script."
    );
    if has_flag {
        println!("cargo::error=What was built of it before was not. Remove that:");
        println!("cargo::error=    cargo clean -p mlua-sys");
    } else {
        println!(
            "cargo::error=Build inside the source tree, whose .cargo/config.toml sees to that, or do:"
        );
        println!("cargo::error=    cargo clean -p mlua-sys && TARGET_FLAGS={FLAG} cargo ...");
    }
}

/// The newest LuaJIT in `target/PROFILE/build/mlua-sys-HASH/out`; this script's output is in
/// `target/PROFILE/build/aeris-HASH/out`. The layout is cargo's own: if no such library is found,
/// there is no check.
fn built_before() -> Option<PathBuf> {
    let out = PathBuf::from(std::env::var_os("OUT_DIR")?);
    let folders = fs::read_dir(out.ancestors().nth(2)?).ok()?.flatten();
    folders
        .filter(|folder| {
            folder
                .file_name()
                .as_encoded_bytes()
                .starts_with(b"mlua-sys-")
        })
        .map(|folder| folder.path().join("out/lib/libluajit.a"))
        .filter_map(|library| Some((library.metadata().ok()?.modified().ok()?, library)))
        .max()
        .map(|(_, library)| library)
}

fn throws_by_unwinding(library: &Path) -> bool {
    const THROW: &[u8] = b"_Unwind_RaiseException";
    let bytes = fs::read(library).unwrap_or_default();
    bytes.windows(THROW.len()).any(|name| name == THROW)
}
