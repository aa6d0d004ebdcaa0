"""Whether to wait one more round of the event loop for calls to join a batch.

Calls of concurrent clients seldom get as far in the very same round: each takes several, for its
headers, its message and its handler. So where calls have been meeting, a batch waits a few rounds,
as long as they go on coming; a lone client's calls never meet anybody, and do not wait at all.
Rounds are no time: on an idle loop they pass in microseconds, on a busy one they do other work.
"""

_MOST_EMPTY_ROUNDS = 8
_MOST_ROUNDS = 64


class Patience:
  """Learns from the sizes of the batches how many rounds without a new call are worth waiting."""

  def __init__(self):
    self._limit = 0
    self._empty = 0
    self._rounds = 0
    self._has_news = False

  def arrived(self) -> None:
    """Notes that a call came."""
    self._has_news = True

  def should_wait(self) -> bool:
    """Tells, once a round, whether to wait for the next; the answer no starts a new wait."""
    self._rounds += 1
    self._empty = 0 if self._has_news else self._empty + 1
    self._has_news = False
    if self._empty < self._limit and self._rounds < _MOST_ROUNDS:
      return True
    self._empty = self._rounds = 0
    return False

  def ran(self, num_calls: int) -> None:
    """Learns from a batch."""
    if num_calls > 1:
      self._limit = min(self._limit + 2, _MOST_EMPTY_ROUNDS)
    else:
      self._limit = max(self._limit - 1, 0)
