"""What stands behind tools/bench/bench.

Reading order: workloads (what is asked, and the budgets), servers (started and
ended here), measure (CPU for each request), memory (bytes for each element),
report and chart (what comes out).
"""
