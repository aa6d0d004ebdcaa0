"""What a session does, call by call: the rules of beliefs, versions and episodes.

This module owns pinning, re-encoding and when a belief may be updated. It holds no channel: its
methods are generators of calls (`signatures`), so the blocking session, the asyncio session and the
TF-Agents policy, which handles many tasks at once, share it.

The rules: an episode is acted on one version. Between episodes the newest version takes over, and
beliefs of another one are computed anew from the raw transitions. If the version of an episode
disappears, the same is done at once with a new latent, or the caller is told, as it chose.
"""

import dataclasses
from collections.abc import Callable, Iterable, Sequence

import grpc
import numpy as np

from serving.client import belief as belief_lib
from serving.client import errors, messages, signatures, transitions, validation
from serving.client import options as options_lib

# A version may disappear while it is being moved to; how often that is put up with in a row.
_MAX_MOVES = 3
_MOVED = (errors.VersionGoneError, errors.ForeignLatentError)


@dataclasses.dataclass
class Latent:
  """The hypothesis of an episode.

  Attributes:
    value: `[L] float32`.
    latent_tag: the latent space it lives in.
    version: the version of the model that the episode is pinned to.
  """

  value: np.ndarray
  latent_tag: int
  version: int


@dataclasses.dataclass
class TaskState:
  """All that a client holds of one task.

  Attributes:
    transitions: what was seen.
    belief: None before the first call.
    latent: None before the first episode.
    num_version_changes: how often an episode had to go on with another version of the model.
  """

  transitions: transitions.Transitions
  belief: belief_lib.Belief | None = None
  latent: Latent | None = None
  num_version_changes: int = 0


class Logic:
  """The rules, for any number of tasks at a time."""

  def __init__(self, options: options_lib.Options):
    """Starts knowing no version.

    Args:
      options: deadlines.
    """
    self._deadlines = options.deadlines
    self._signatures: dict[int, signatures.Signatures] = {}
    self._without_update: set[int] = set()

  def of_version(self, version: int) -> signatures.Signatures:
    """Returns the signatures of a version that has been described."""
    return self._signatures[version]

  def connect(self) -> signatures.Steps[signatures.Signatures]:
    """Waits for the server and returns the signatures of the version in force."""
    call = messages.Describe(self._deadlines.connect, wait_for_ready=True)
    return (yield from self._describe(call))

  def newest(self) -> signatures.Steps[signatures.Signatures]:
    """Returns the signatures of the version in force."""
    return (yield from self._describe(messages.Describe(self._deadlines.describe)))

  def begin(
    self, tasks: Sequence[TaskState], random: np.random.Generator
  ) -> signatures.Steps[None]:
    """Begins an episode of every task: newest version, latent drawn from the belief.

    Args:
      tasks: their beliefs are encoded anew where they are of another version.
      random: source of the seeds.
    """
    seeds = _draw_seeds(random, len(tasks))

    def begin_on(model: signatures.Signatures) -> signatures.Steps[None]:
      yield from self._move(model, [task for task in tasks if _is_foreign(task, model)])
      latents = yield from model.sample_latents([task.belief for task in tasks], seeds)
      for task, value in zip(tasks, latents, strict=True):
        task.latent = Latent(value, task.belief.latent_tag, model.version)

    yield from self._on_newest(tasks, begin_on)

  def act(
    self,
    tasks: Sequence[TaskState],
    observations: np.ndarray,
    random: np.random.Generator,
    *,
    deterministic: bool,
    reencode: bool,
  ) -> signatures.Steps[np.ndarray]:
    """Chooses an action for every task, each on the version its episode began with.

    Args:
      tasks: `B` tasks in an episode.
      observations: `[B, O]`.
      random: source of the seeds.
      deterministic: the mean action instead of a sampled one.
      reencode: go on with the newest version where that of an episode is gone, instead of raising.

    Returns:
      `[B, A] float32` in [-1, 1].

    Raises:
      VersionChangedError: if a version is gone and `reencode` is False.
    """
    observations = validation.floats('observation', observations, [len(tasks), None])
    seeds = None if deterministic else _draw_seeds(random, len(tasks))
    actions: list[np.ndarray | None] = [None] * len(tasks)
    for version, rows in _grouped(task.latent.version for task in tasks).items():
      group = [tasks[row] for row in rows]
      group_seeds = None if seeds is None else seeds[rows]
      try:
        found = yield from self._act_on(version, group, observations[rows], group_seeds)
      except _MOVED as error:
        if not reencode:
          raise errors.VersionChangedError(
            f'version {version} of the model, which this episode began with, is gone: {error}'
          ) from error
        _distrust(group, error)
        found = yield from self._act_anew(group, observations[rows], group_seeds, random)
      for row, action in zip(rows, found, strict=True):
        actions[row] = action
    return np.stack(actions)

  def adapt(self, tasks: Sequence[TaskState]) -> signatures.Steps[None]:
    """Takes the pending transitions of every task into its belief.

    Only these are sent where the model can add evidence, else all that is kept.

    Args:
      tasks: each keeps the version of its belief while that is served.
    """
    known = [task for task in tasks if task.belief is not None and task.transitions.num_pending]
    lost = [task for task in tasks if task.belief is None]
    for version, rows in _grouped(task.belief.version for task in known).items():
      group = [known[row] for row in rows]
      try:
        model = yield from self._model(version)
        yield from self._update_on(model, group)
      except _MOVED as error:
        _distrust(group, error)
        lost += group
    if lost:
      yield from self._on_newest(lost, lambda model: self._encode_everything(model, lost))

  def _describe(self, call: messages.Describe) -> signatures.Steps[signatures.Signatures]:
    description = yield call
    model = signatures.Signatures(description.version, description.interface, self._deadlines)
    known = self._signatures.get(description.version)
    if known is None or known.sizes != model.sizes:
      self._signatures[description.version] = model
      self._without_update.discard(description.version)
      if not model.sizes.has_update:
        self._without_update.add(description.version)
    return self._signatures[description.version]

  def _model(self, version: int) -> signatures.Steps[signatures.Signatures]:
    """Returns the signatures of a version, which may be one that another client told of."""
    if version not in self._signatures:
      yield from self.newest()
    if version not in self._signatures:
      raise errors.VersionGoneError(
        grpc.StatusCode.NOT_FOUND, f'version {version} is not the one in force', 'GetModelMetadata'
      )
    return self._signatures[version]

  def _on_newest(
    self,
    tasks: Sequence[TaskState],
    steps_fn: Callable[[signatures.Signatures], signatures.Steps[None]],
  ) -> signatures.Steps[None]:
    """Runs steps on the newest version, again should it be replaced meanwhile."""
    for attempt in range(_MAX_MOVES):
      model = yield from self.newest()
      try:
        yield from steps_fn(model)
        return
      except _MOVED as error:
        if attempt == _MAX_MOVES - 1:
          raise
        _distrust(tasks, error)

  def _move(
    self, model: signatures.Signatures, tasks: Sequence[TaskState]
  ) -> signatures.Steps[None]:
    """Computes beliefs anew on another model, from the transitions they came from."""
    if tasks:
      _check_kept(tasks)
      contexts = [task.transitions.settled(model.sizes) for task in tasks]
      yield from self._encode(model, tasks, contexts)

  def _encode_everything(
    self, model: signatures.Signatures, tasks: Sequence[TaskState]
  ) -> signatures.Steps[None]:
    _check_kept(tasks)
    contexts = [task.transitions.everything(model.sizes) for task in tasks]
    yield from self._encode(model, tasks, contexts)
    for task in tasks:
      task.transitions.num_pending = 0

  def _encode(
    self,
    model: signatures.Signatures,
    tasks: Sequence[TaskState],
    contexts: Sequence[np.ndarray],
  ) -> signatures.Steps[None]:
    """Sets beliefs to what follows from whole contexts."""
    beliefs = yield from model.encode(contexts)
    for task, belief in zip(tasks, beliefs, strict=True):
      task.belief = belief

  def _update_on(
    self, model: signatures.Signatures, tasks: Sequence[TaskState]
  ) -> signatures.Steps[None]:
    if model.version not in self._without_update:
      try:
        contexts = [task.transitions.pending(model.sizes) for task in tasks]
        beliefs = yield from model.update([task.belief for task in tasks], contexts)
      except errors.CallError as error:
        if not signatures.is_refused_update(error):
          raise
        self._without_update.add(model.version)
      else:
        for task, belief in zip(tasks, beliefs, strict=True):
          task.belief = belief
          task.transitions.num_pending = 0
        return
    yield from self._encode_everything(model, tasks)

  def _act_on(
    self,
    version: int,
    tasks: Sequence[TaskState],
    observations: np.ndarray,
    seeds: np.ndarray | None,
  ) -> signatures.Steps[np.ndarray]:
    model = yield from self._model(version)
    return (
      yield from model.act(
        observations,
        np.stack([task.latent.value for task in tasks]),
        np.array([task.latent.latent_tag for task in tasks], np.int64),
        seeds,
      )
    )

  def _act_anew(
    self,
    tasks: Sequence[TaskState],
    observations: np.ndarray,
    seeds: np.ndarray | None,
    random: np.random.Generator,
  ) -> signatures.Steps[np.ndarray]:
    """Acts on the newest version in the middle of an episode."""
    for task in tasks:
      task.num_version_changes += 1
    for attempt in range(_MAX_MOVES):
      yield from self.begin(tasks, random)
      try:
        return (yield from self._act_on(tasks[0].latent.version, tasks, observations, seeds))
      except _MOVED as error:
        if attempt == _MAX_MOVES - 1:
          raise
        _distrust(tasks, error)
    raise AssertionError('unreachable')


def _draw_seeds(random: np.random.Generator, number: int) -> np.ndarray:
  return random.integers(np.iinfo(np.int32).max, size=[number, 2], dtype=np.int32)


def _grouped(versions: Iterable[int]) -> dict[int, list[int]]:
  """Returns the rows of each version."""
  groups: dict[int, list[int]] = {}
  for row, version in enumerate(versions):
    groups.setdefault(version, []).append(row)
  return groups


def _is_foreign(task: TaskState, model: signatures.Signatures) -> bool:
  return task.belief is None or task.belief.version != model.version


def _check_kept(tasks: Sequence[TaskState]) -> None:
  """Refuses to encode anew a belief whose transitions are not here."""
  for task in tasks:
    kept = len(task.transitions) - task.transitions.num_pending
    if task.belief is not None and task.belief.count and not kept:
      raise errors.ContextLostError(
        f'the belief of {task.belief.count} transitions has to be computed anew, but they are not '
        'kept: start from the prior'
      )


def _distrust(tasks: Sequence[TaskState], error: Exception) -> None:
  """Marks beliefs for encoding where the same version number means other weights by now."""
  if isinstance(error, errors.ForeignLatentError):
    for task in tasks:
      if task.belief is not None:
        task.belief = task.belief._replace(version=-1)
