"""Two studies on real public records, each with the mapping files and policies of its sites.

`python -m examples.prepare lung runs/lung` sets a whole consortium up on this machine.
"""
