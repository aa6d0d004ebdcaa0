"""A session: tasks and episodes begin, steps are acted, beliefs follow.

An episode is acted on one version of the model. Between episodes the newest one takes over. If the
version of an episode disappears, the same happens at once with a new latent, or the caller is told,
as it chose.

`step` runs in the caller's thread; everything that makes beliefs and latents (`task`) runs one
after the other in a thread of the session's own, so that acting goes on meanwhile.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from concurrent import futures
from typing import NamedTuple

import grpc
import numpy as np
from numpy import typing

from serving.client import beliefs, bounds, channel, errors, wire
from serving.client import options as options_lib
from serving.client import task as task_lib

_SEEDS = 2**31 - 1
_log = logging.getLogger(__name__)


class Action(NamedTuple):
  """What to do now.

  Attributes:
    value: `[A] float32`, in [-1, 1] or, where the session knows them, in the bounds given.
    version: the version of the model that chose it.
    age: seconds since the observation that it was chosen for was handed to `step`.
    round_trip: seconds that the call which chose it took.
    error: why it is an earlier action that is held; None for a fresh one.
  """

  value: np.ndarray
  version: int
  age: float
  round_trip: float
  error: errors.CallError | None = None


class _Chosen(NamedTuple):
  action: np.ndarray
  version: int
  given: float
  round_trip: float

  def record(self, value: np.ndarray, error: errors.CallError | None = None) -> Action:
    return Action(value, self.version, time.monotonic() - self.given, self.round_trip, error)


class Session:
  """An agent's stay with one task; a context manager that ends its thread.

  For one thread at a time.

  Attributes:
    num_version_changes: how often an episode had to go on with another version of the model.
  """

  def __init__(
    self,
    model: channel.Connection,
    *,
    seed: int = 0,
    action_bounds: tuple[typing.ArrayLike, typing.ArrayLike] | None = None,
    on_failure: str = 'raise',
    max_age_seconds: float = 0.5,
    deterministic: bool = True,
    moves_within_episode: bool = True,
    capacity: int = 4096,
    belief: beliefs.Belief | None = None,
  ):
    """Starts on the prior; nothing is sent yet.

    Args:
      model: a connection, which may be shared with other sessions, or what `load` returned.
      seed: seeds latents, and actions where they are sampled.
      action_bounds: lowest and highest action of the environment, `[A]` each: actions come and go
        in these units instead of [-1, 1]. An export's manifest has them (`read_manifest`).
      on_failure: what `step` does where no answer comes in time or the server refuses: 'raise', or
        'hold' the last action of the episode, unless it is too old.
      max_age_seconds: how old an action may get that is held.
      deterministic: act by the mean action instead of sampling.
      moves_within_episode: where the version of an episode is not served any more, go on with the
        newest one and a new latent; otherwise `step` raises `VersionChangedError` and the episode
        should end.
      capacity: raw transitions kept, to compute the belief anew after a change of the model; what
        is older is then lost to the belief.
      belief: goes on from the belief of an earlier session instead of the prior.

    Raises:
      ValueError: if an argument makes no sense; names it.
    """
    if on_failure not in ('raise', 'hold'):
      raise ValueError(f"on_failure must be 'raise' or 'hold', got {on_failure!r}")
    self.num_version_changes = 0
    self._model = model
    self._holds = on_failure == 'hold'
    self._max_age = options_lib.check_seconds('max_age_seconds', max_age_seconds)
    self._bounds = bounds.Bounds(*(action_bounds or (-1.0, 1.0)))
    self._is_scaled = action_bounds is not None
    self._signature = 'act' if deterministic else 'act_sample'
    self._moves = moves_within_episode
    self._capacity = options_lib.check_count('capacity', capacity, least=1)
    # One for each thread that draws.
    seed = options_lib.check_count('seed', seed, least=0)
    self._random, self._latent_random = (np.random.default_rng([seed, part]) for part in range(2))
    self._worker = futures.ThreadPoolExecutor(1, thread_name_prefix='pearl-session')
    self._new_task(belief)

  def _new_task(self, belief: beliefs.Belief | None) -> None:
    self._task = task_lib.Task(
      self._model, self._latent_random, capacity=self._capacity, belief=belief
    )
    self._moving: futures.Future | None = None
    self._adapting: futures.Future | None = None
    self._previous: tuple[np.ndarray, np.ndarray | None] | None = None
    self._chosen: _Chosen | None = None
    self._held: errors.CallError | None = None

  def __enter__(self) -> Session:
    return self

  def __exit__(self, *unused_exception) -> None:
    self.close()

  def close(self) -> None:
    """Ends the session's thread, after the call that it may be making."""
    self._worker.shutdown(wait=False, cancel_futures=True)

  @property
  def belief(self) -> beliefs.Belief | None:
    """The belief; None before the first episode."""
    return self._task.belief

  @property
  def latent(self) -> task_lib.Latent | None:
    """What this episode is acted on; None before the first one of a task."""
    return self._task.latent

  @property
  def num_pending(self) -> int:
    """Transitions kept that are not part of the belief yet."""
    return self._task.num_pending

  def begin_task(self) -> None:
    """Starts over with a new task: the prior, no transitions, no episode. Sends nothing."""
    self._new_task(None)

  def begin_episode(self, *, timeout: float | None = None) -> task_lib.Latent:
    """Moves to the newest version of the model and draws the latent of a new episode.

    Waits for an adaptation under way, so that the latent is drawn from what came of it.

    Args:
      timeout: seconds; `Deadlines.begin` by default.

    Returns:
      The latent.

    Raises:
      CallError: if the server cannot be reached in time or refuses.
      ContextLostError: if the model is another one and the belief's transitions are not kept.
      ModelMismatchError: if its actions are not as many as the bounds.
    """
    self._previous = self._chosen = None
    self._submit(self._task.begin, 'begin', timeout).result()
    self._bounds.check(self._task.latent.sizes.action_size)
    self._moving = None
    return self._task.latent

  def step(
    self,
    observation: typing.ArrayLike,
    reward: float | None = None,
    *,
    action: typing.ArrayLike | None = None,
    timeout: float | None = None,
  ) -> Action:
    """Takes in what the last action led to and chooses the next one.

    Args:
      observation: `[O]`, what is seen now.
      reward: what the last action of this episode brought, as the encoder is shown it: sparse where
        the task has a sparse reward. None where nothing is to be learned from it. Not looked at in
        the first step.
      action: what was really done, where it was not the action returned last.
      timeout: seconds; `Deadlines.act` by default.

    Returns:
      The action, fresh, or held where the session holds (`Action.error` tells).

    Raises:
      InvalidInputError: if something is wrong with the arguments, or no episode has begun.
      CallError: if the server cannot be reached in time or refuses. The next `step` may go on;
        what was done instead of an action is to be given to it, or nothing is learned from it.
      VersionChangedError: see the constructor.
    """
    given = time.monotonic()
    budget = channel.budget(self._model.deadlines, 'act', timeout)
    previous, self._previous = self._previous, None
    observation = self._seen(observation, 'step')
    if reward is not None:
      self._learn(previous, reward, observation, action)
    self._previous = (observation, None)
    try:
      self._chosen = self._act(observation, budget, given)
      error = None
    except errors.CallError as failure:
      error = failure
      if not self._holds or self._chosen is None:
        raise
      if time.monotonic() - self._chosen.given > self._max_age:
        raise
    if (error is None) != (self._held is None):
      _log.warning('acting again' if error is None else f'holding the last action: {error}')
    self._held = error
    self._previous = (observation, self._chosen.action)
    value = self._chosen.action.copy()
    return self._chosen.record(
      self._bounds.of_environment(value) if self._is_scaled else value, error
    )

  def end_episode(
    self, observation: typing.ArrayLike, reward: float, *, action: typing.ArrayLike | None = None
  ) -> None:
    """Takes in what the last action of an episode led to; sends nothing. As for `step`."""
    previous, self._previous = self._previous, None
    observation = self._seen(observation, 'end_episode')
    self._learn(previous, reward, observation, action)

  def observe(
    self,
    observation: typing.ArrayLike,
    action: typing.ArrayLike,
    reward: float,
    next_observation: typing.ArrayLike | None = None,
  ) -> None:
    """Keeps one transition for the next `adapt`; `step` does it by itself. Sends nothing.

    Args:
      observation: `[O]`.
      action: `[A]`, in the units of `Action.value`.
      reward: as for `step`.
      next_observation: `[O]`; may be left out where the model does not look at it.

    Raises:
      InvalidInputError: if something has the wrong shape, is not finite or out of bounds, or no
        episode has begun.
    """
    observation = self._seen(observation, 'observe')
    if next_observation is not None:
      next_observation = self._seen(next_observation, 'observe')
    elif self._task.latent.sizes.uses_next_observation:
      raise errors.InvalidInputError('this model needs next_observation with every transition')
    self._keep(observation, self._of_model(action), reward, next_observation)

  def adapt(self, *, timeout: float | None = None) -> beliefs.Belief | None:
    """Takes the transitions observed so far into the belief.

    The latent stays until the next episode begins. Only what is new is sent, unless the model
    cannot add evidence (a recurrent encoder), which gets the whole context.

    Args:
      timeout: seconds; `Deadlines.adapt` by default.

    Returns:
      The belief; None before the first episode.

    Raises:
      CallError: if the server cannot be reached in time or refuses; nothing is lost then.
      ContextLostError: if the model is another one and the belief's transitions are not kept.
    """
    self._submit(self._task.adapt, 'adapt', timeout).result()
    return self._task.belief

  def adapt_in_background(self, *, redraw: bool = False) -> futures.Future:
    """Does what `adapt` does while acting goes on; what is observed meanwhile stays pending.

    Args:
      redraw: then draw a new latent, which `step` acts on at once: for a task without episodes.

    Returns:
      A future; that of the adaptation under way if there is one. A failure is logged, loses
      nothing, and is the future's exception.
    """
    if self._adapting is None or self._adapting.done():
      self._adapting = self._submit(self._task.adapt, 'adapt')
      if redraw:
        adapting, task = self._adapting, self._task

        def begin(budget: channel.Budget) -> None:
          adapting.result()  # If that failed, so does this, and the latent stays.
          task.begin(budget)

        self._adapting = self._submit(begin, 'begin')
      self._adapting.add_done_callback(_report)
    return self._adapting

  def _submit(
    self, method: Callable[[channel.Budget], None], operation: str, timeout: float | None = None
  ) -> futures.Future:
    """Runs a method in the session's thread, its time starting when its turn comes."""
    deadlines = self._model.deadlines
    channel.budget(deadlines, operation, timeout)  # A wrong timeout is refused at once.
    return self._worker.submit(lambda: method(channel.budget(deadlines, operation, timeout)))

  def _seen(self, observation: typing.ArrayLike, method: str) -> np.ndarray:
    latent = self._task.latent
    if latent is None:
      raise errors.InvalidInputError(f'call begin_episode before {method}')
    return wire.floats('observation', observation, [latent.sizes.observation_size])

  def _learn(self, previous, reward, observation, action) -> None:
    if previous is None:
      return
    before, done = previous
    if action is not None:
      done = self._of_model(action)
    if done is not None:
      self._keep(before, done, reward, observation)

  def _of_model(self, action: typing.ArrayLike) -> np.ndarray:
    return self._bounds.of_model(action, self._task.latent.sizes.action_size)

  def _keep(self, observation, action, reward, next_observation) -> None:
    reward = wire.floats('reward', reward, [])
    row = np.concatenate([observation, action, reward[np.newaxis]])
    self._task.keep(row, next_observation)

  def _act(self, observation: np.ndarray, budget: channel.Budget, given: float) -> _Chosen:
    for attempt in range(task_lib.MAX_MOVES):
      self._wait_for_move(budget)
      latent = self._task.latent
      if latent.sizes.observation_size != len(observation):
        raise errors.ModelMismatchError(
          f'the new version of the model takes observations of {latent.sizes.observation_size} '
          f'numbers, these have {len(observation)}: it is a model of another environment'
        )
      inputs = {
        'observation': observation[np.newaxis],
        'z': latent.value[np.newaxis],
        'latent_tag': np.array([latent.latent_tag], np.int64),
      }
      if self._signature == 'act_sample':
        inputs['seed'] = self._random.integers(_SEEDS, size=[1, 2], dtype=np.int32)
      sent = time.monotonic()
      try:
        version, outputs = self._model.predict(self._signature, inputs, budget, latent.version)
        return _Chosen(outputs['action'][0], version, given, time.monotonic() - sent)
      except errors.MOVED as error:
        if not self._moves:
          raise errors.VersionChangedError(
            f'version {latent.version} of the model, which this episode began with, is gone: '
            f'{error}'
          ) from error
        if attempt == task_lib.MAX_MOVES - 1:
          raise
        _log.warning('going on with the newest version in mid-episode: %s', error)
        self.num_version_changes += 1
        self._moving = self._submit(self._task.begin, 'begin')
    raise AssertionError('unreachable')

  def _wait_for_move(self, budget: channel.Budget) -> None:
    """Waits until the episode has a latent of another version, if it is to get one."""
    if self._moving is None:
      return
    try:
      self._moving.result(budget.left())
    except futures.TimeoutError:
      raise errors.CallError(
        grpc.StatusCode.DEADLINE_EXCEEDED,
        'the version of this episode is gone and the move to another one goes on',
        'begin',
        f'{budget.seconds:g} s is the limit set by {budget.setting}',
      ) from None
    except BaseException:
      self._moving = self._submit(self._task.begin, 'begin')
      raise
    self._moving = None
    self._bounds.check(self._task.latent.sizes.action_size)


def _report(future: futures.Future) -> None:
  if not future.cancelled() and future.exception() is not None:
    _log.warning('adapting failed, what was observed stays pending: %s', future.exception())
