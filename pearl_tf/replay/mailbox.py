"""Messages between the processes of a run, through a table of the replay server.

A table of one item holds what is newest for everybody; a queue gives each message to one reader.
Reading has a time-out as long as the server answers, and waits for it while it is away.
"""

from typing import Any

import numpy as np
import reverb
import tensorflow as tf

from pearl_tf.replay import streams

_PUT_SECONDS = 120


class Mailbox:
  """One table and the form of its messages."""

  def __init__(self, server_address: str, table: str, spec: Any):
    """Connects.

    Args:
      server_address: `host:port`.
      table: its name.
      spec: of a message, a nest of `tf.TensorSpec`.
    """
    self._address = server_address
    self._client = reverb.Client(server_address)
    self._table = table
    self._spec = spec

  def put(self, message: Any) -> None:
    """Sends a message.

    Args:
      message: a nest of arrays of the form given.

    Raises:
      TimeoutError: if the server does not confirm within two minutes.
    """
    # A stream fixes the shapes at the first message, so each has its own.
    stream = streams.open_stream(self._client, _PUT_SECONDS)
    stream.append(tf.nest.map_structure(np.asarray, message))
    item = tf.nest.map_structure(lambda column: column[-1], stream.history)
    stream.create_item(self._table, priority=1.0, trajectory=item)
    try:
      stream.flush(timeout_ms=_PUT_SECONDS * 1000)
    except reverb.errors.DeadlineExceededError as error:
      raise TimeoutError(
        f'the replay server at {self._address} did not take a message for {self._table!r} within '
        f'{_PUT_SECONDS} s'
      ) from error
    stream.close()

  def get(self, timeout_seconds: float) -> Any | None:
    """Returns the oldest message of a queue, the newest of other tables; None if there is none.

    Args:
      timeout_seconds: how long to wait for one.
    """
    dataset = reverb.TrajectoryDataset(
      server_address=self._address,
      table=self._table,
      dtypes=tf.nest.map_structure(lambda spec: spec.dtype, self._spec),
      shapes=tf.nest.map_structure(lambda spec: spec.shape, self._spec),
      max_in_flight_samples_per_worker=1,
      num_workers_per_iterator=1,
      max_samples=1,
      rate_limiter_timeout_ms=int(timeout_seconds * 1000),
    )
    for sample in dataset:
      return tf.nest.map_structure(lambda part: part.numpy(), sample.data)
    return None
