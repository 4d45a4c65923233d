"""One command each: `python -m benchmarks.NAME` runs within a minute, explains its figures and ends with one line of JSON.

`python -m benchmarks` (or `make bench`) runs all of them and rewrites the table in docs/benchmarks.md. Every benchmark measures
a peer or a physical limit in the same run, so that its ratios mean something on any machine.
"""

NAMES = ("secure_sum", "noise", "rounds", "aggregate", "airlock", "startup")
"""In the order of the table. A benchmark is a module here with a `main()` whose last line is the JSON of `report`."""
