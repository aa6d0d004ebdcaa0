"""What is known of one task: transitions, belief, latent; and the rules of versions.

A belief belongs to one version's latent space and cannot be translated: on another one it is
computed anew from the raw transitions. Nothing here knows of acting or threads but for one promise:
`keep` may be called from another thread than the rest, and loses nothing.
"""

from __future__ import annotations

import collections
import itertools
import logging
import threading
from typing import NamedTuple

import grpc
import numpy as np

from serving.client import beliefs, channel, errors, wire

# A version may disappear while it is being moved to; how often that is put up with in a row.
MAX_MOVES = 3
# What a server answers where the shapes are those of a version before the one in force.
_OTHER_SHAPES = (grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.FAILED_PRECONDITION)
_log = logging.getLogger(__name__)


class Latent(NamedTuple):
  """The hypothesis that an episode is acted on.

  Attributes:
    value: `[L] float32`.
    latent_tag: the latent space it lives in.
    version: the version of the model that the episode is pinned to.
    sizes: of that version.
  """

  value: np.ndarray
  latent_tag: int
  version: int
  sizes: wire.Sizes


class Task:
  """One task.

  Attributes:
    belief: None before the first episode, unless it was given.
    latent: None before the first episode.
  """

  def __init__(
    self,
    model: channel.Connection,
    random: np.random.Generator,
    *,
    capacity: int,
    belief: beliefs.Belief | None = None,
  ):
    """Starts without transitions; nothing is sent yet.

    Args:
      model: a connection, or what `local.load` returned.
      random: draws the seeds of latents.
      capacity: transitions kept.
      belief: to go on from.
    """
    self.belief = belief
    self.latent: Latent | None = None
    self._model = model
    self._random = random
    self._capacity = capacity
    # Counted from the first one ever kept, so that some may come, and others fall out, while an
    # earlier stretch of them is on its way to the server: `end` were kept so far, of which the
    # first `settled` are part of the belief.
    self._rows: collections.deque[tuple[np.ndarray, np.ndarray | None]] = collections.deque()
    self._end = self._settled = 0
    self._lock = threading.Lock()
    self._without_update: set[int] = set()

  @property
  def num_pending(self) -> int:
    """How many transitions are kept that are not part of the belief yet."""
    return self._end - max(self._settled, self._start)

  @property
  def _start(self) -> int:
    return self._end - len(self._rows)

  def keep(self, row: np.ndarray, next_observation: np.ndarray | None) -> None:
    """Adds one transition, pending; the oldest falls out where the buffer is full.

    Args:
      row: observation, action and reward, `[O + A + 1] float32`.
      next_observation: `[O] float32`; may be None where the model does not look at it.
    """
    with self._lock:
      if len(self._rows) == self._capacity:
        if self._start == self._settled:
          _log.warning(
            'transitions fall out before any adaptation has seen them: adapt more often, or give '
            'the session a capacity above %d',
            self._capacity,
          )
        self._rows.popleft()
      self._rows.append((row, next_observation))
      self._end += 1

  def begin(self, budget: channel.Budget) -> None:
    """Draws a latent on the newest version, from a belief computed anew where it must be.

    Raises:
      CallError: if the server cannot be reached in time or refuses.
      ContextLostError: if the model is another one and the belief's transitions are not kept.
    """
    seed = self._random.integers(2**31 - 1, size=[1, 2], dtype=np.int32)
    belief, is_stale = self.belief, self.belief is None
    for attempt in range(MAX_MOVES):
      version = None
      try:
        if is_stale:
          version, sizes = self._model.describe(budget)
          context, _ = self._context(sizes, with_pending=False)
          belief = self._encode(version, sizes, context, budget)
        version, values = beliefs.sample(self._model, version, [belief], seed, budget)
        sizes = self._model.sizes(version, budget)
        break
      except (errors.CallError, errors.ForeignLatentError) as error:
        has_moved = isinstance(error, errors.MOVED)
        has_other_shapes = not has_moved and not is_stale and error.code in _OTHER_SHAPES
        if attempt == MAX_MOVES - 1 or not (has_moved or has_other_shapes):
          raise
        is_stale = True
    self.belief = belief._replace(version=version)
    self.latent = Latent(values[0], belief.latent_tag, version, sizes)

  def adapt(self, budget: channel.Budget) -> None:
    """Takes what is pending into the belief, on its own version or, if that is gone, the newest.

    Raises:
      CallError: if the server cannot be reached in time or refuses; nothing is lost then.
      ContextLostError: if the model is another one and the belief's transitions are not kept.
    """
    if not self.num_pending:
      return
    version = self.belief.version
    for attempt in range(MAX_MOVES):
      try:
        if version is None:
          version, _ = self._model.describe(budget)
        elif self._update(version, budget):
          return
        sizes = self._model.sizes(version, budget)
        context, end = self._context(sizes, with_pending=True)
        self.belief, self._settled = self._encode(version, sizes, context, budget), end
        return
      except errors.MOVED:
        if attempt == MAX_MOVES - 1:
          raise
        version = None

  def _update(self, version: int, budget: channel.Budget) -> bool:
    """Adds what is pending to the belief; returns False if the model cannot do that."""
    if version in self._without_update:
      return False
    sizes = self._model.sizes(version, budget)
    if sizes.has_update:
      with self._lock:
        context, end = self._rows_as(sizes, self._settled - self._start, None), self._end
      try:
        (belief,) = beliefs.update(self._model, [self.belief], [context], budget)
      except errors.CallError as error:
        if not beliefs.is_refused_update(error):
          raise
      else:
        self.belief, self._settled = belief, end
        return True
    self._without_update.add(version)
    return False

  def _encode(
    self, version: int, sizes: wire.Sizes, context: np.ndarray, budget: channel.Budget
  ) -> beliefs.Belief:
    splits = sizes.has_update and version not in self._without_update
    return beliefs.encode(self._model, version, [context], budget, splits=splits)[0]

  def _context(self, sizes: wire.Sizes, *, with_pending: bool) -> tuple[np.ndarray, int]:
    """Returns what a belief is to be computed from anew, `[N, C]`, and the end of it."""
    with self._lock:
      settled = max(self._settled - self._start, 0)
      if self.belief is not None and self.belief.count and not settled:
        raise errors.ContextLostError(
          f'the belief of {self.belief.count} transitions has to be computed anew, but they are '
          'not kept: start from the prior'
        )
      return self._rows_as(sizes, 0, None if with_pending else settled), self._end

  def _rows_as(self, sizes: wire.Sizes, start: int, stop: int | None) -> np.ndarray:
    """Returns some of the transitions kept as the model takes them, `[N, C] float32`."""
    rows = list(itertools.islice(self._rows, max(start, 0), stop))
    result = np.zeros([len(rows), sizes.context_size], np.float32)
    width = sizes.observation_size + sizes.action_size + 1
    for target, (row, following) in zip(result, rows):
      if len(row) != width:
        raise errors.ModelMismatchError(
          f'the transitions kept have {len(row)} numbers before the next observation, the new '
          f'version of the model takes {width}: it is a model of another environment'
        )
      target[:width] = row
      if sizes.uses_next_observation:
        if following is None:
          raise errors.ContextLostError(
            'the new version of the model needs next_observation, which was not given to observe'
          )
        target[width:] = following
    return result
