"""A SavedModel in a TensorFlow session of its own, and calls of it that cost little.

This is TensorFlow Serving's execution model: a graph, a session and a callable for each set of
fetched tensors. It needs neither tracing nor Python per op, and gives its memory back when closed.
"""

import ctypes
import gc
import pathlib
from collections.abc import Callable, Sequence

import numpy as np
import tensorflow as tf
from tensorflow.core.protobuf import config_pb2, meta_graph_pb2

# `tf.compat.v1.saved_model.load` is this and a warning that it is deprecated.
from tensorflow.python.saved_model import loader_impl


class GraphSession:
  """One loaded SavedModel."""

  def __init__(self, version_dir: pathlib.Path):
    """Loads the graph tagged `serve`, restores its variables and runs its initializer.

    Args:
      version_dir: Folder with `saved_model.pb`.

    Raises:
      tf.errors.OpError: If TensorFlow cannot load it.
    """
    config = config_pb2.ConfigProto(
      allow_soft_placement=True,
      device_count={'GPU': 0},
      intra_op_parallelism_threads=1,
      # Ops run in the thread that calls: handing them to a pool costs more than most of them do.
      inter_op_parallelism_threads=-1,
    )
    self._graph = tf.Graph()
    self._session = tf.compat.v1.Session(graph=self._graph, config=config)
    try:
      saved_model = loader_impl.SavedModelLoader(str(version_dir))
      with self._graph.as_default():
        self.meta_graph: meta_graph_pb2.MetaGraphDef = saved_model.load(
          self._session, [tf.saved_model.SERVING]
        )
    except BaseException:
      self.close()
      raise

  def make_callable(
    self, feeds: Sequence[str], fetches: Sequence[str]
  ) -> Callable[..., list[np.ndarray]]:
    """Returns a function of one array per feed that returns one array per fetch.

    Args:
      feeds: Names of tensors.
      fetches: Names of tensors.
    """
    options = config_pb2.CallableOptions(feed=feeds, fetch=fetches)
    # Keras' way as well. The public `make_callable` looks up the feeds in Python at each call and
    # takes three times as long.
    return self._session._make_callable_from_options(options)

  def close(self) -> None:
    """Frees the variables and the graph."""
    self._session.close()
    self._session = self._graph = self.meta_graph = None


def release_memory() -> None:
  """Returns what closed sessions held to the system.

  Graphs are full of reference cycles, and glibc keeps freed pages: without both steps a server
  that reloads often grows.
  """
  gc.collect()
  trim = getattr(ctypes.CDLL(None), 'malloc_trim', None)
  if trim is not None:  # Only glibc has it.
    trim(0)
