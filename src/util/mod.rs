//! Small pure functions that every layer uses: numbers, glob patterns, quoting.
