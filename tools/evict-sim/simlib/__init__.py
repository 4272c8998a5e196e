"""The parts of evict-sim: traces, exact caches, the replay through servers, the report."""
