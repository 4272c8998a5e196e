//! The few operating-system calls behind safe functions.
