"""The replay server of a run: a Reverb server in this process.

`ReplayServer` owns the tables and their port. It keeps nothing when it stops: the learner's cache
is in the learner's checkpoint and fills the tables again (`pearl_tf.replay.memory`).
"""

from collections.abc import Sequence

import reverb
from absl import logging

from pearl_tf import proxies

_ANSWER_SECONDS = 60


class ReplayServer:
  """A Reverb server that runs until `stop` or the end of a `with` block."""

  def __init__(self, tables: Sequence[reverb.Table], *, port: int | None = None):
    """Starts the server, empty.

    Args:
      tables: Its tables.
      port: TCP port, or `None` for a free one.

    Raises:
      ConnectionError: If something keeps this process from reaching its own server.
    """
    proxies.spare_local_traffic()
    self._server: reverb.Server | None = reverb.Server(tables, port=port)
    try:
      self._check_answers()
      logging.log_first_n(
        logging.WARNING,
        'the replay server listens at a port of every network interface, without authentication: '
        'keep other machines away from it (README, "Network")',
        1,
      )
    except BaseException:
      self.stop()
      raise

  @property
  def port(self) -> int:
    """The TCP port.

    Raises:
      RuntimeError: If the server was stopped.
    """
    if self._server is None:
      raise RuntimeError('The replay server was stopped.')
    return self._server.port

  @property
  def address(self) -> str:
    """`host:port` for clients on this machine."""
    return f'localhost:{self.port}'

  def stop(self) -> None:
    """Stops the server; what it held is gone."""
    if self._server is not None:
      self._server.stop()
      self._server = None

  def __enter__(self) -> 'ReplayServer':
    return self

  def __exit__(self, *exception) -> None:
    self.stop()

  def _check_answers(self) -> None:
    try:
      reverb.Client(self.address).server_info(timeout=_ANSWER_SECONDS)
    except reverb.errors.DeadlineExceededError as error:
      raise ConnectionError(
        f'the replay server of this process does not answer at {self.address}: does a firewall '
        'or a proxy stand between this machine and itself?'
      ) from error
