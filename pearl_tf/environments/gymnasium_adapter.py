"""One task environment as a TF-Agents environment.

This module owns `GymnasiumAdapter`: scaling of actions, the time limit, the difference between
termination and truncation, seeds, and the check of everything a family returns. It draws no tasks
by itself and batches nothing; roll-outs step several adapters side by side.

Public API of `GymnasiumAdapter(env, *, max_episode_steps=None, seed=None)`, beside `reset`, `step`,
`action_spec`, `observation_spec`, `time_step_spec`, `render`, `close` of a `PyEnvironment`:
`begin_episode()`, `take_step(action)`, `last_step`, `sample_tasks(num_tasks, seed)`,
`set_task(task)`, `task`, `has_sparse_reward`, `max_episode_steps`, `name`.
"""

import math
from typing import Any, NoReturn

import gymnasium
import numpy as np
from tf_agents.environments import py_environment
from tf_agents.specs import array_spec
from tf_agents.trajectories import time_step as ts

from pearl_tf.data import types
from pearl_tf.environments import meta_env
from pearl_tf.environments import tolerance as tolerance_lib


def _constant(value: float) -> np.ndarray:
  """A scalar array that all time steps may share, as nobody can write to it."""
  array = np.array(value, dtype=np.float32)
  array.flags.writeable = False
  return array


_ZERO = _constant(0.0)
_ONE = _constant(1.0)


class EnvironmentFault(RuntimeError):
  """An environment broke its contract; the message names it, its task, the step and the value."""


class UnsoundEpisode(EnvironmentFault):
  """The fault is in numbers of the simulator: the next episode may be sound."""


class PolicyFault(ValueError):
  """An action is not a number, which is the fault of whoever acts."""


class GymnasiumAdapter(py_environment.PyEnvironment):
  """A `MetaEnv` (or any gymnasium environment with `sample_tasks` and `set_task`) for TF-Agents.

  Actions are in [-1, 1] whatever the bounds of the environment: they are clipped, then mapped
  linearly. An episode ends with discount 0 where the environment terminated, and with discount 1 at
  the time limit or where the environment truncated. Setting a task abandons the episode in
  progress.

  Roll-outs call `begin_episode` and `take_step`, which return all there is to know as a
  `types.Step`. TF-Agents' drivers call `reset` and `step`, whose time steps have no place for the
  context reward and success; `last_step` tells them.

  Attributes:
    total_steps: steps taken since it was made.
    last_step: what the last beginning or step of an episode returned; None before the first.
    tolerance: as given; counts its episodes.
  """

  def __init__(
    self,
    env: gymnasium.Env,
    *,
    max_episode_steps: int | None = None,
    seed: int | None = None,
    tolerance: tolerance_lib.Tolerance | None = None,
  ):
    """Wraps an environment, which belongs to the adapter from then on.

    Args:
      env: The environment: `[O]` observations, `[A]` actions in a bounded Box.
      max_episode_steps: Length at which an episode is cut; None for no limit.
      seed: Seeds the environment at the first reset; later ones continue its generator.
      tolerance: Says which numbers are too large; shared by the environments of a run.

    Raises:
      TypeError: If the environment has no tasks or spaces of another kind.
      ValueError: If shapes, bounds or the limit are impossible.
    """
    super().__init__()
    self._env = env
    spec = getattr(env.unwrapped, 'spec', None)
    self._name = spec.id if spec is not None else type(env.unwrapped).__name__
    self._check_spaces()
    if max_episode_steps is not None and max_episode_steps < 1:
      raise ValueError(f'max_episode_steps must be at least 1, got {max_episode_steps}.')
    self._max_episode_steps = max_episode_steps
    self._pending_seed = seed
    self.tolerance = tolerance or tolerance_lib.Tolerance()
    # A sum of squares below it is that of numbers that are all within the bound.
    self._largest_square = min(self.tolerance.largest_number**2, float(np.finfo(np.float32).max))
    self._task = meta_env.attribute(env, 'task', None)
    self._has_sparse_reward = bool(meta_env.attribute(env, 'has_sparse_reward', False))
    self._observation_shape = env.observation_space.shape
    self._action_shape = env.action_space.shape
    low, high = env.action_space.low, env.action_space.high
    self._needs_scaling = bool(np.any(low != -1.0) or np.any(high != 1.0))
    self._action_half_range = (high - low).astype(np.float32) / 2
    self._action_center = (low / 2 + high / 2).astype(np.float32)
    self._observation_spec = array_spec.ArraySpec(
      self._observation_shape, np.float32, name='observation'
    )
    self._action_spec = array_spec.BoundedArraySpec(
      self._action_shape, np.float32, minimum=-1.0, maximum=1.0, name='action'
    )
    self.total_steps = 0
    self._num_steps = 0
    self._in_episode = False
    self.last_step: types.Step | None = None

  def _check_spaces(self) -> None:
    for method in meta_env.missing_methods(self._env):
      raise TypeError(f'{self._name} has no {method}: derive it from meta_env.MetaEnv.')
    for kind in ('observation', 'action'):
      space = getattr(self._env, f'{kind}_space')
      if not isinstance(space, gymnasium.spaces.Box):
        raise TypeError(f'The {kind} space of {self._name} must be a Box, got {space}.')
      if len(space.shape) != 1 or space.shape[0] < 1:
        raise ValueError(
          f'The {kind}s of {self._name} must be vectors, got shape {space.shape}; flatten them, '
          'for example with gymnasium.wrappers.FlattenObservation.'
        )
    actions = self._env.action_space
    with np.errstate(over='ignore', invalid='ignore'):  # The largest float stands for infinity.
      is_bounded = np.isfinite(np.float32(actions.high) - np.float32(actions.low)).all()
    if not is_bounded:
      raise ValueError(
        f'The action space of {self._name} must be bounded for actions in [-1, 1] to be mapped to '
        f'it, got {actions}; give the bounds that make sense to the environment.'
      )
    if not (actions.low < actions.high).all():
      raise ValueError(f'The action space of {self._name} is empty or a point: {actions}.')

  @property
  def name(self) -> str:
    """The id the environment was registered under, else the name of its class."""
    return self._name

  @property
  def max_episode_steps(self) -> int | None:
    """The time limit applied here."""
    return self._max_episode_steps

  @property
  def gymnasium_env(self) -> gymnasium.Env:
    """The wrapped environment."""
    return self._env

  @property
  def steps_in_threads(self) -> bool:
    """Whether it may be stepped beside others of its family in threads."""
    return bool(meta_env.attribute(self._env, 'steps_in_threads', False))

  @property
  def has_sparse_reward(self) -> bool:
    """Whether the context reward of a step differs from its reward."""
    return self._has_sparse_reward

  @property
  def task(self) -> types.Task | None:
    """The task in force; None where the environment tells no default."""
    return self._task

  def sample_tasks(self, num_tasks: int, seed: int) -> list[types.Task]:
    """See `meta_env.MetaEnv.sample_tasks`."""
    return meta_env.sample_tasks(self._env, num_tasks, seed)

  def describe_task(self, task: types.Task) -> str:
    """Says what a task asks for, in the words of its family where that has some."""
    describe = meta_env.attribute(self._env, 'describe_task', None)
    return describe(task) if describe else f'task {task.index}'

  def set_task(self, task: types.Task) -> None:
    """Puts a task in force and abandons the episode in progress: the next step starts a new one."""
    self._num_steps, self._task = 0, task
    try:
      self._env.get_wrapper_attr('set_task')(task)
    except Exception as error:
      self._raise_fault(f'set_task raised {type(error).__name__}: {error}', error)
    self._in_episode = False
    self._current_time_step = None

  def observation_spec(self) -> array_spec.ArraySpec:
    """`[O] float32`."""
    return self._observation_spec

  def action_spec(self) -> array_spec.BoundedArraySpec:
    """`[A] float32` in [-1, 1]."""
    return self._action_spec

  def render(self, mode: str = 'rgb_array') -> np.ndarray | None:
    """Renders in the mode the environment was made with.

    Raises:
      ValueError: If that is another one.
    """
    if self._env.render_mode != mode:
      raise ValueError(
        f'{self._name} was made with render_mode={self._env.render_mode!r} and cannot render '
        f'{mode!r}; make it with render_mode={mode!r}.'
      )
    return self._env.render()

  def close(self) -> None:
    """Closes the environment."""
    self._env.close()

  def seed(self, seed: int) -> None:
    """Makes the next reset start the environment's generator anew; later ones continue it.

    Args:
      seed: Not negative. All an episode depends on, given its task and the actions.
    """
    self._pending_seed = seed

  def _reset(self) -> ts.TimeStep:
    return ts.TimeStep(ts.StepType.FIRST, _ZERO, _ONE, self.begin_episode().observation)

  def _step(self, action: np.ndarray) -> ts.TimeStep:
    if not self._in_episode:
      return self._reset()
    step = self.take_step(action)
    return ts.TimeStep(
      ts.StepType.LAST if step.is_last else ts.StepType.MID,
      np.array(step.reward, dtype=np.float32),
      _ONE if step.discount else _ZERO,
      step.observation,
    )

  def begin_episode(self) -> types.Step:
    """Starts an episode of the task in force, abandoning the one in progress.

    Raises:
      EnvironmentFault: If the environment breaks its contract.
    """
    self._num_steps, self._current_time_step = 0, None
    self.tolerance.num_episodes += 1
    # Should the environment raise, its next step is not taken for one of an old episode.
    self._in_episode = False
    try:
      if self._pending_seed is None:
        result = self._env.reset()
      else:
        result = self._env.reset(seed=self._pending_seed)
        self._pending_seed = None
    except Exception as error:
      self._raise_fault(f'reset raised {type(error).__name__}: {error}', error)
    try:
      observation, _ = result
    except (TypeError, ValueError) as error:
      self._raise_fault(f'reset must return (observation, info), got {result!r}', error)
    observation = self._checked_observation(observation)
    self._in_episode = True
    self.last_step = types.Step(observation)
    return self.last_step

  def take_step(self, action: np.ndarray) -> types.Step:
    """Takes a step of the episode in progress.

    Args:
      action: `[A]` in [-1, 1], clipped to it.

    Raises:
      EnvironmentFault: If the environment breaks its contract.
      PolicyFault: If the action is not a number.
      RuntimeError: If no episode is in progress.
    """
    if not self._in_episode:
      raise RuntimeError(f'{self._name} is in no episode: call begin_episode first.')
    self._num_steps += 1
    self.total_steps += 1
    action = self._scaled(action)
    try:
      result = self._env.step(action)
    except Exception as error:
      is_unsound = isinstance(error, meta_env.Diverged)
      self._raise_fault(
        f'step raised {type(error).__name__}: {error}', error, is_unsound=is_unsound
      )
    try:
      observation, reward, terminated, truncated, info = result
    except (TypeError, ValueError) as error:
      self._raise_fault(
        f'step must return (observation, reward, terminated, truncated, info), got {result!r}',
        error,
      )
    observation = self._checked_observation(observation)
    reward = self._checked_reward(reward, 'reward')
    context_reward = self._sparse_reward(info) if self._has_sparse_reward else reward
    success = self.last_step.success
    if not success and isinstance(info, dict) and 'success' in info:
      success = float(self._checked_reward(info['success'], 'success') > 0)
    if type(terminated) is not bool:
      terminated = self._checked_flag(terminated, 'terminated')
    if type(truncated) is not bool:
      truncated = self._checked_flag(truncated, 'truncated')
    is_last = terminated or truncated or self._num_steps == self._max_episode_steps
    self._in_episode = not is_last
    discount = 0.0 if terminated else 1.0
    self.last_step = types.Step(observation, reward, context_reward, discount, is_last, success)
    return self.last_step

  def _scaled(self, action: np.ndarray) -> np.ndarray:
    """Clips to [-1, 1] and maps linearly to the bounds; `[A] float32`."""
    action = np.asarray(action, dtype=np.float32)
    if action.shape != self._action_shape:
      raise ValueError(
        f'{self._name} takes actions of shape {self._action_shape}, got {action.shape}.'
      )
    action = np.minimum(np.maximum(action, -1.0), 1.0)
    # One product instead of isfinite and all: NaN survives the clipping, infinity does not.
    if math.isnan(action.dot(action)):
      raise PolicyFault(
        f'the policy gave {self._name}, {_describe(self._task)}, an action that is not a number in '
        f'step {self._num_steps} of the episode: {action}'
      )
    if self._needs_scaling:
      action *= self._action_half_range
      action += self._action_center
    return action

  def _checked_observation(self, observation: Any) -> np.ndarray:
    """A copy of a sound observation, `[O] float32`: environments may reuse their array."""
    try:
      given = np.asarray(observation)
    except ValueError as error:
      self._raise_fault(f'the observation is no array: {observation!r}', error)
    if given.dtype.kind not in 'fiub':
      self._raise_fault(
        f'the observation has dtype {given.dtype}, expected numbers: {observation!r}'
      )
    if given.shape != self._observation_shape:
      self._raise_fault(
        f'the observation has shape {given.shape}, expected {self._observation_shape}'
      )
    checked = given.astype(np.float32)
    # One product instead of abs and all; it can also be of many numbers, hence the second look.
    if not checked.dot(checked) <= self._largest_square:
      for index, number in enumerate(given.tolist()):
        problem = self.tolerance.check(number)
        if problem:
          self._raise_fault(f'observation[{index}] is {problem}', is_unsound=True)
    return checked

  def _checked_reward(self, reward: Any, what: str) -> float:
    try:
      value = float(reward)
    except (TypeError, ValueError) as error:
      self._raise_fault(f'the {what} is {reward!r}, expected a number', error)
    if not -self.tolerance.largest_number <= value <= self.tolerance.largest_number:
      self._raise_fault(f'the {what} is {self.tolerance.check(value)}', is_unsound=True)
    return value

  def _checked_flag(self, flag: Any, what: str) -> bool:
    """The truth of what is not a bool: one of numpy, 0 or 1, or an array of one of these."""
    value = np.asarray(flag)
    if value.size != 1 or value.dtype.kind not in 'biu' or value.item() not in (0, 1):
      self._raise_fault(f'{what} is {flag!r}, expected True or False')
    return bool(value.item())

  def _sparse_reward(self, info: dict[str, Any]) -> float:
    try:
      reward = info['sparse_reward']
    except (TypeError, KeyError) as error:
      self._raise_fault(
        f"has_sparse_reward is set, but info has no 'sparse_reward': {info!r}", error
      )
    return self._checked_reward(reward, 'sparse reward')

  def _raise_fault(
    self, what: str, cause: Exception | None = None, *, is_unsound: bool = False
  ) -> NoReturn:
    self._in_episode = False
    self._current_time_step = None
    raise (UnsoundEpisode if is_unsound else EnvironmentFault)(
      f'Environment {self._name}, {_describe(self._task)}, step {self._num_steps} of the episode: '
      f'{what}.'
    ) from cause


def _describe(task: types.Task | None) -> str:
  if task is None:
    return 'no task set'
  parameters = np.array2string(np.asarray(task.parameters), separator=', ', threshold=16)
  index = 'default task' if task.index == meta_env.DEFAULT_TASK_INDEX else f'task {task.index}'
  return f'{index} (parameters {parameters})'
