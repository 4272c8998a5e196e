"""The runner behind tools/suite/run.

Reading order: expected (what may fail), tree (what there is to run), output
(what the suites print), unit (one unit to its end), cli (all of them).
"""
