"""Streams to a replay server that may be away for a while."""

import time

import reverb

_PAUSE_SECONDS = 1.0


def open_stream(client: reverb.Client, timeout_seconds: float) -> reverb.TrajectoryWriter:
  """Returns a stream that keeps one step, as soon as the server lets one be opened.

  Args:
    client: of the server.
    timeout_seconds: how long to try.

  Raises:
    TimeoutError: if that is over.
  """
  deadline = time.monotonic() + timeout_seconds
  while True:
    try:
      return client.trajectory_writer(num_keep_alive_refs=1)
    except RuntimeError as error:  # What Reverb makes of a connection that was refused or cut.
      if time.monotonic() > deadline:
        raise TimeoutError(
          f'the replay server at {client.server_address} takes nothing: {error}'
        ) from error
    time.sleep(_PAUSE_SECONDS)


def table_sizes(client: reverb.Client, timeout_seconds: int) -> dict[str, int] | None:
  """Returns how many items each table holds; None while the server does not answer."""
  try:
    info = client.server_info(timeout_seconds)
  except (reverb.errors.DeadlineExceededError, RuntimeError):
    return None
  return {name: table.current_size for name, table in info.items()}
