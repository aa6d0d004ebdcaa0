"""Roll-outs: many trials stepped in lockstep by one policy.

This module owns the loop between environments and policy, for collection and meta-test alike. What
becomes of an episode (replay, scores) is the caller's business, through a callback.
"""

import os
from collections.abc import Callable, Sequence
from concurrent import futures
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf
from tf_agents.trajectories import time_step as ts

from pearl_tf.collect import actor, trial
from pearl_tf.data import types
from pearl_tf.environments import gymnasium_adapter

# Of two threads one simulates while the other has the interpreter's lock; more find it taken.
_NUM_THREADS = 2
# Of fewer environments a thread steps, handing them over takes as long.
_MIN_PER_THREAD = 8


class FinishedEpisode(NamedTuple):
  """An episode and the belief it was acted on.

  Attributes:
    trial_index: position of its trial in the list given to `run`.
    task: the task.
    phase: name of the phase.
    index: 0-based number of the episode within its phase.
    in_context: whether it joined the trial's context.
    adapted: whether the belief came from the context (False: the prior).
    state: what the trial carried at its end, the actor's nest without leading dimension.
    episode: its `S` transitions.
    success: whether it succeeded, 1 or 0; None where the environment does not say.
  """

  trial_index: int
  task: types.Task
  phase: str
  index: int
  in_context: bool
  adapted: bool
  state: Any
  episode: types.Episode
  success: float | None = None


class _Slot:
  """One environment with the trial and the unfinished episode that occupy it."""

  def __init__(self, environment: gymnasium_adapter.GymnasiumAdapter):
    self.environment = environment
    self.trial: trial.Trial | None = None
    self.trial_index = -1
    self.before_episode: tuple[list[np.ndarray], float] = [], 0.0
    self.success: float | None = None
    self._columns = types.Episode([], [], [], [], [], [])

  def start_trial(self, index: int, new_trial: trial.Trial, seed: int) -> None:
    self.trial_index = index
    self.trial = new_trial
    self._columns = types.Episode([], [], [], [], [], [])  # A fault may have left a part of one.
    self.environment.seed(seed)
    self.environment.set_task(new_trial.task)

  def record(self, observation: np.ndarray, action: np.ndarray, step: types.Step) -> None:
    columns = self._columns
    columns.observation.append(observation)
    columns.action.append(action)
    columns.reward.append(step.reward)
    columns.context_reward.append(step.context_reward)
    columns.discount.append(step.discount)
    columns.next_observation.append(step.observation)
    self.success = step.success

  def drop_episode(self, fault: gymnasium_adapter.UnsoundEpisode) -> None:
    """Throws away what there is of an episode; raises the fault where that were too often."""
    self._columns = types.Episode([], [], [], [], [], [])
    self.environment.tolerance.drop(fault)

  def take_episode(self) -> types.Episode:
    episode = types.Episode(*(np.asarray(column, np.float32) for column in self._columns))
    self._columns = types.Episode([], [], [], [], [], [])
    return episode


class Rollout:
  """Runs any number of trials on a fixed set of environments."""

  def __init__(
    self,
    environments: Sequence[gymnasium_adapter.GymnasiumAdapter],
    acting: actor.Actor,
  ):
    """Prepares one slot per environment.

    Args:
      environments: as many trials run in parallel; each must have a time limit.
      acting: acts and adapts.

    Raises:
      ValueError: if there is no environment or one without `max_episode_steps`.
    """
    if not environments:
      raise ValueError('a rollout needs at least one environment')
    for environment in environments:
      if environment.max_episode_steps is None:
        raise ValueError(f'{environment.name} has no max_episode_steps: an episode might never end')
    self._slots = [_Slot(environment) for environment in environments]
    self._actor = acting
    self._thread = None
    in_threads = all(environment.steps_in_threads for environment in environments)
    if in_threads and len(os.sched_getaffinity(0)) >= _NUM_THREADS:
      self._thread = futures.ThreadPoolExecutor(_NUM_THREADS - 1, 'rollout')
    num_slots = len(self._slots)
    observation_size = environments[0].observation_spec().shape[0]
    self._observation = np.zeros([num_slots, observation_size], np.float32)
    self._step_type = np.zeros([num_slots], np.int32)
    self._reward = np.zeros([num_slots], np.float32)

  def run(
    self,
    trials: Sequence[trial.Trial],
    *,
    seed: np.random.SeedSequence,
    on_episode: Callable[[FinishedEpisode], None],
  ) -> int:
    """Runs every trial to its end.

    The result is a function of the policy, the trials, the number of slots and `seed`. An episode
    with a number that `Tolerance` does not take is thrown away; its trial goes on with another.

    Args:
      trials: started in order, as slots become free.
      seed: source of all randomness: environments, latents, actions, context sub-samples.
      on_episode: called with every finished episode, in the order they finish.

    Returns:
      The number of environment steps, those of episodes thrown away included.

    Raises:
      EnvironmentFault: if an environment breaks its contract, or too many episodes had to be thrown
        away; names environment and task.
      PolicyFault: if an action is not a number.
    """
    trial_seeds = np.random.SeedSequence(seed.entropy, spawn_key=(*seed.spawn_key, 0))
    random = np.random.default_rng(
      np.random.SeedSequence(seed.entropy, spawn_key=(*seed.spawn_key, 1))
    )
    environment_seeds = trial_seeds.generate_state(len(trials))
    waiting = list(enumerate(trials))[::-1]
    # Anew at every run: what a trial begins with may have been trained meanwhile.
    initial = self._actor.initial_state(1)
    self._initial = tf.nest.flatten(tf.nest.map_structure(lambda part: part[0], initial))
    self._state = tf.nest.map_structure(
      lambda part: np.repeat(part, len(self._slots), axis=0), initial
    )

    def start_next(slot_index: int) -> bool:
      while waiting:
        index, next_trial = waiting.pop()
        if next_trial.phase is not None:
          slot = self._slots[slot_index]
          slot.start_trial(index, next_trial, int(environment_seeds[index]))
          self._reward[slot_index] = 0.0
          self._start_episode(slot_index, to_prior=True)
          return True
      return False

    active = [slot for slot in range(len(self._slots)) if start_next(slot)]
    self._adapt_where_due(active, random)
    num_steps = 0
    while active:
      ended = self._step(active, random)
      num_steps += len(active)
      for slot_index in ended:
        on_episode(self._finish_episode(slot_index))
      finished = [slot for slot in ended if self._slots[slot].trial.phase is None]
      idle = [slot for slot in finished if not start_next(slot)]
      active = [slot for slot in active if slot not in idle]
      self._adapt_where_due([slot for slot in ended if slot not in idle], random)
    return num_steps

  def _step(self, active: list[int], random: np.random.Generator) -> list[int]:
    """Takes one environment step in every active slot; returns the slots whose episode ended."""
    state = self._read(active)
    seed = random.integers(np.iinfo(np.int32).max, size=2, dtype=np.int32)
    observation = self._observation[active]
    actions, after = self._actor.act(
      observation, self._step_type[active], self._reward[active], state, seed
    )
    for row in np.flatnonzero(self._step_type[active] == ts.StepType.FIRST):
      slot_index = active[row]
      carried = [part[row].copy() for part in tf.nest.flatten(state)]
      self._slots[slot_index].before_episode = carried, self._reward[slot_index]
    self._write(active, state, after)
    ended = []
    for row, step in enumerate(self._take_steps(active, actions)):
      slot_index = active[row]
      slot = self._slots[slot_index]
      if isinstance(step, gymnasium_adapter.UnsoundEpisode):
        slot.drop_episode(step)
        carried, self._reward[slot_index] = slot.before_episode
        for part, before in zip(tf.nest.flatten(self._state), carried, strict=True):
          part[slot_index] = before
        self._start_episode(slot_index, to_prior=False)
        continue
      slot.record(observation[row], actions[row], step)
      self._observation[slot_index] = step.observation
      self._step_type[slot_index] = ts.StepType.MID
      self._reward[slot_index] = step.context_reward
      if step.is_last:
        ended.append(slot_index)
    return ended

  def _take_steps(
    self, active: list[int], actions: np.ndarray
  ) -> list[types.Step | gymnasium_adapter.UnsoundEpisode]:
    """Steps the environments of active slots, in threads where there are enough of them."""

    def take(rows: range) -> list[types.Step | gymnasium_adapter.UnsoundEpisode]:
      steps = []
      for row in rows:
        try:
          steps.append(self._slots[active[row]].environment.take_step(actions[row]))
        except gymnasium_adapter.UnsoundEpisode as fault:
          steps.append(fault)
      return steps

    half = len(active) // _NUM_THREADS
    if self._thread is None or half < _MIN_PER_THREAD:
      return take(range(len(active)))
    other = self._thread.submit(take, range(half, len(active)))
    try:
      return take(range(half)) + other.result()
    finally:
      futures.wait([other])  # Whatever happened here, nobody else steps an environment later on.

  def _finish_episode(self, slot_index: int) -> FinishedEpisode:
    """Hands out the episode of a slot and starts the next one of its trial, if any."""
    slot = self._slots[slot_index]
    current = slot.trial
    episode = slot.take_episode()
    finished = FinishedEpisode(
      trial_index=slot.trial_index,
      task=current.task,
      phase=current.phase.name,
      index=current.episodes_in_phase,
      in_context=current.phase.in_context,
      adapted=current.adapted,
      state=tf.nest.map_structure(lambda part: part[slot_index].copy(), self._state),
      episode=episode,
      success=slot.success,
    )
    to_prior = current.finish_episode(episode)
    if current.phase is not None:
      self._start_episode(slot_index, to_prior=to_prior)
    return finished

  def _start_episode(self, slot_index: int, *, to_prior: bool) -> None:
    slot, step = self._slots[slot_index], None
    while step is None:
      try:
        step = slot.environment.begin_episode()
      except gymnasium_adapter.UnsoundEpisode as fault:
        slot.drop_episode(fault)
    self._observation[slot_index] = step.observation
    self._step_type[slot_index] = ts.StepType.FIRST
    if to_prior:
      for part, first in zip(tf.nest.flatten(self._state), self._initial, strict=True):
        part[slot_index] = first

  def _read(self, slots: list[int]) -> Any:
    return tf.nest.map_structure(lambda part: part[slots], self._state)

  def _write(self, slots: list[int], before: Any, after: Any) -> None:
    """Keeps what an actor made of what it was given; a part that it gave back is not copied."""
    parts = (tf.nest.flatten(nest) for nest in (self._state, before, after))
    for kept, given, changed in zip(*parts, strict=True):
      if changed is not given:
        kept[slots] = changed

  def _adapt_where_due(self, slots: list[int], random: np.random.Generator) -> None:
    """Adapts all slots whose trial asks for it, in one call."""
    due = [slot for slot in slots if self._slots[slot].trial.needs_inference]
    if not due:
      return
    contexts = [self._slots[slot].trial.context(random) for slot in due]
    state = self._read(due)
    self._write(due, state, self._actor.adapt(state, contexts, random))
