"""Reaching the replay server, and agreeing with whoever else reaches it.

The server holds what a run is: resolved configuration, seed, tasks and version. Every process reads
it first and refuses to be part of another run.
"""

import contextlib
import json
import math
import os
import threading
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import reverb
import tensorflow as tf

from pearl_tf import version
from pearl_tf.experiment import builder as builder_lib
from pearl_tf.experiment import interruption, run_folder, task_split
from pearl_tf.replay import mailbox, streams, tables

# Of a process that waited in vain: whoever started it should start it again.
EXIT_UNREACHABLE = 75
_ATTEMPT_SECONDS = 5
_SPEC = tf.TensorSpec([None], tf.uint8)


class DisagreementError(RuntimeError):
  """This process is of another run than the replay server; the message has the difference."""


def wait_for_server(address: str, deadline_seconds: float) -> None:
  """Returns when the server answers.

  Raises:
    TimeoutError: if it does not in time.
  """
  started = time.monotonic()
  while not _answers(address, max(1, min(_ATTEMPT_SECONDS, int(deadline_seconds)))):
    waited = time.monotonic() - started
    if waited > deadline_seconds:
      raise TimeoutError(_unreachable(address, waited))


def _answers(address: str, seconds: int = _ATTEMPT_SECONDS) -> bool:
  # A client of its own: one that was refused waits ever longer before it tries again.
  return streams.table_sizes(reverb.Client(address), seconds) is not None


def _unreachable(address: str, seconds: float) -> str:
  return (
    f'the replay server at {address} has not answered for {seconds:.0f} s: was it started, is this '
    'its address and port, and does a firewall or a proxy (no_proxy) stand between?'
  )


def identity(builder: builder_lib.Builder) -> dict[str, Any]:
  """Returns what all processes of a run must agree on, as plain data."""
  return {
    'configuration': builder.experiment.text,
    'seed': builder.seed,
    'tasks': task_split.as_text(builder.tasks),
    'version': version.__version__,
  }


def announce(address: str, builder: builder_lib.Builder) -> None:
  """Tells the server what run it is of."""
  text = json.dumps(identity(builder)).encode()
  mailbox.Mailbox(address, tables.RUN, _SPEC).put(np.frombuffer(text, np.uint8))


def read(address: str, deadline_seconds: float) -> dict[str, Any]:
  """Returns what run a server is of.

  Raises:
    TimeoutError: if it does not say so in time.
  """
  wait_for_server(address, deadline_seconds)
  message = mailbox.Mailbox(address, tables.RUN, _SPEC).get(deadline_seconds)
  if message is None:
    raise TimeoutError(
      f'the server at {address} has not said within {deadline_seconds:.0f} s what '
      'run it is of: is it a trainers.replay_server?'
    )
  return json.loads(message.tobytes())


def check(address: str, builder: builder_lib.Builder, deadline_seconds: float) -> None:
  """Checks that this process is of the same run as a server.

  Raises:
    DisagreementError: if it is not.
    TimeoutError: if the server does not say so in time.
  """
  theirs, ours = read(address, deadline_seconds), identity(builder)
  difference = run_folder.difference_of(theirs['configuration'], ours['configuration'])
  for name in ('seed', 'version', 'tasks'):
    if theirs[name] != ours[name]:
      difference += [f'-{name} = {theirs[name]}', f'+{name} = {ours[name]}']
  if difference:
    raise DisagreementError(
      f'the replay server at {address} is of another run. Difference (- the server, + this '
      'process):\n' + '\n'.join(difference) + '\nStart both with the same options.'
    )


class Lifeline:
  """A context in which the process ends when the server is away for too long.

  Some calls of Reverb wait for the server without end, and cannot be interrupted: while it is away,
  and on a connection of which only this side knows, when the server died while the link was down.
  """

  def __init__(self, address: str, deadline_seconds: float):
    """Names the server.

    Args:
      address: `host:port`.
      deadline_seconds: after how long without an answer.
    """
    self._address = address
    self._deadline = deadline_seconds
    self._is_over = threading.Event()
    self._call_began = math.inf

  def __enter__(self) -> 'Lifeline':
    threading.Thread(target=self._watch, name='lifeline', daemon=True).start()
    return self

  def __exit__(self, *unused_exception) -> None:
    self._is_over.set()

  @contextlib.contextmanager
  def call(self) -> Iterator[None]:
    """A context for a call that the server answers at once: it, too, has the deadline."""
    self._call_began = time.monotonic()
    try:
      yield
    finally:
      self._call_began = math.inf

  def _watch(self) -> None:
    answered = time.monotonic()
    while not self._is_over.wait(_ATTEMPT_SECONDS):
      if _answers(self._address):
        answered = time.monotonic()
      silent = time.monotonic() - min(answered, self._call_began)
      if silent > self._deadline:
        interruption.write(f'error: {_unreachable(self._address, silent)}')
        os._exit(EXIT_UNREACHABLE)
