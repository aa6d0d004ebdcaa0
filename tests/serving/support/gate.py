"""A gate in front of every graph, so that a test decides how long a model takes."""

import threading
from typing import Self
from unittest import mock

from serving.server import batcher, servable


class Gate:
  """Lets no graph run in this process until it is opened; opens at the end of the block.

  Attributes:
    num_runs: graphs that have come to the gate.
  """

  def __init__(self):
    self.num_runs = 0
    self._is_open = threading.Event()
    run = servable.Servable.run

    def wait_and_run(model: servable.Servable, *args, **kwargs):
      self.num_runs += 1
      self._is_open.wait()
      return run(model, *args, **kwargs)

    self._patches = [
      mock.patch.object(servable.Servable, 'run', wait_and_run),
      # The event loop must not wait.
      mock.patch.object(batcher, 'INLINE_SECONDS', 0.0),
    ]

  def open(self) -> None:
    """Lets everything through from now on."""
    self._is_open.set()

  def __enter__(self) -> Self:
    for patch in self._patches:
      patch.start()
    return self

  def __exit__(self, *exc_info):
    self.open()
    for patch in self._patches:
      patch.stop()
