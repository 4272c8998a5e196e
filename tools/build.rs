//! Stops a build whose LuaJIT would end the server at the first error of a script.
//!
//! LuaJIT throws its errors either by the C++ way of unwinding, or by its own jump. This crate aborts on panic, so
//! nothing may unwind through its frames: LuaJIT has to be built with `-DLUAJIT_NO_UNWIND`. mlua's `vendored` build
//! runs LuaJIT's own Makefile, where the variable TARGET_FLAGS is for such flags; `.cargo/config.toml` sets it, by
//! force, since no other tool reads a variable of this name. (CFLAGS and TARGET_CFLAGS, which people do set, stay
//! theirs.)
//!
//! Cargo reads that file only when it runs inside this tree. `cargo install --git`, a vendoring tool or a
//! distribution's build don't, and would have made a server that passes every build and dies of `redis.call` of an
//! unknown command. A build script can't add to the environment of another crate's; so it looks, and says what to
//! do.

const FLAG: &str = "-DLUAJIT_NO_UNWIND";
/// Variables that LuaJIT's Makefile takes flags from.
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
    if VARIABLES.iter().any(has_flag) {
        return;
    }
    println!(
        "cargo::error=LuaJIT must be built with {FLAG}, else the server aborts at the first error in a script."
    );
    println!(
        "cargo::error=Build inside the source tree, whose .cargo/config.toml sees to that, or do:"
    );
    println!("cargo::error=    cargo clean -p mlua-sys && TARGET_FLAGS={FLAG} cargo ...");
}
