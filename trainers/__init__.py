"""The programs, each started as `python -m trainers.<name>`."""

import sys

# Python's name for the program while it still looks for its module: one of ours is about to start,
# and what TensorFlow and gym say when they are imported comes before its first line.
if sys.argv[0] == '-m':
  from trainers import cli

  cli.silence()
