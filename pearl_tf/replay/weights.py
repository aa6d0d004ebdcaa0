"""Weights from the learner to who acts or evaluates, through a table that keeps the newest ones.

Not TF-Agents' `ReverbVariableContainer`: its `update` never returns when the server is gone.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from pearl_tf.replay import mailbox


class Age(NamedTuple):
  """How far the run was when weights were published.

  Attributes:
    gradient_steps: taken.
    iteration: finished iterations.
    env_steps: training transitions collected.
    is_last: 1 if the run is over.
  """

  gradient_steps: int
  iteration: int = 0
  env_steps: int = 0
  is_last: int = 0


class Weights:
  """Some variables and the table that others read their values from."""

  def __init__(self, server_address: str, table: str, variables: Sequence[tf.Variable]):
    """Connects.

    Args:
      server_address: `host:port`.
      table: of one item.
      variables: the same ones, in the same order, in every process.
    """
    self._variables = variables
    spec = {'age': tf.TensorSpec([len(Age._fields)], tf.int64)}
    spec |= {_name(i): tf.TensorSpec(v.shape, v.dtype) for i, v in enumerate(variables)}
    self._mailbox = mailbox.Mailbox(server_address, table, spec)

  def publish(self, age: Age) -> None:
    """Sends the values as they are; raises `TimeoutError` if the server takes none."""
    values = {_name(i): variable.numpy() for i, variable in enumerate(self._variables)}
    self._mailbox.put({'age': np.array(age, np.int64)} | values)

  def fetch(self, timeout_seconds: float) -> Age | None:
    """Assigns the newest values; returns their age, None if there are none in time."""
    message = self._mailbox.get(timeout_seconds)
    if message is None:
      return None
    for i, variable in enumerate(self._variables):
      variable.assign(message[_name(i)])
    return Age(*message['age'].tolist())


def _name(index: int) -> str:
  return f'variable_{index:04d}'
