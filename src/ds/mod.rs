//! Data structures over packed bytes. `unsafe` lives here and in `sys`.
