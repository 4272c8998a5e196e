//! Settings: one table for redis.conf, command-line arguments and CONFIG.
