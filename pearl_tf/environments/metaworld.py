"""Meta-World's ML1, ML10 and ML45 as task families: a Sawyer arm that has to manipulate things.

This module owns the translation between the benchmark's tasks and ours; environments, rewards and
goals are those of the package `metaworld` (Yu et al. 2019, arXiv:1910.10897), unchanged. It is the
only module that needs the extra `metaworld`. One goal of one of the 50 environments is one task. An
episode has 500 steps in the benchmark, which truncates it there.

Public API, beside that of `meta_env.MetaEnv`: `MetaWorld.sample_task_split(num_train, num_test,
seed)`, as the benchmark brings test tasks of its own, and `MetaWorld.simulation`.
"""

import abc
import difflib
import functools
import pickle
from typing import Any

import gymnasium
import mujoco
import numpy as np

from pearl_tf.data import types
from pearl_tf.environments import meta_env

try:
  import metaworld
  from metaworld import env_dict, sawyer_xyz_env
except ModuleNotFoundError as error:
  if error.name != 'metaworld':
    raise
  raise ModuleNotFoundError(
    'The environments of Meta-World need an optional part: pip install .[metaworld]',
    name='metaworld',
  ) from error

# The 50 environments, in the order in which the benchmark numbers them.
ENVIRONMENT_NAMES: tuple[str, ...] = tuple(env_dict.ALL_V3_ENVIRONMENTS)
# The most numbers that any of them draws for a goal: positions of an object and of its target.
_MAX_DRAWN = 6
# Drawn numbers may lie outside their bounds by a rounding of float32, in metres.
_TOLERANCE = 1e-6
# The benchmark draws its test goals from the next seed.
_MAX_BENCHMARK_SEED = 2**32 - 2
_OBSERVATION_SIZE = 39
_ACTION_SIZE = 4


class MetaWorld(meta_env.MetaEnv, abc.ABC):
  """What the three families share.

  Observation `[39] float32`: hand and object now (18), at the previous step (18), and three zeros,
  where the benchmark's multi-task variant shows the goal. Action `[4]` in +-1: displacement of the
  hand and force of the gripper. Never terminates; truncates at 500 steps. Each step's `info` has
  the benchmark's own terms, `success` (0 or 1) among them.

  Task parameters: the number of the environment in `ENVIRONMENT_NAMES`, then the numbers that the
  benchmark drew for the goal (3 or 6, in metres, padded with zeros). Take tasks from
  `sample_tasks`: some environments never finish a reset with a goal that they would not have drawn.

  Only the environment of the task in force is kept, as each takes about 15 MB.
  """

  metadata = {'render_modes': ['human', 'rgb_array', 'depth_array'], 'render_fps': 80}
  parameter_names = ('environment', *(f'drawn_{index}' for index in range(_MAX_DRAWN)))
  observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (_OBSERVATION_SIZE,), np.float32)
  action_space = gymnasium.spaces.Box(-1.0, 1.0, (_ACTION_SIZE,), np.float32)

  def __init__(self, *, render_mode: str | None = None, **render_arguments):
    """Makes a family; its environments are made when a task asks for them.

    Args:
      render_mode: One of the modes of gymnasium's MuJoCo environments, or None.
      **render_arguments: `width`, `height`, `camera_name` ('corner2' ...) or `camera_id`.
    """
    _support_simulator()
    self.render_mode = render_mode
    self._render_arguments = render_arguments
    self._simulation: sawyer_xyz_env.SawyerXYZEnv | None = None

  @property
  def simulation(self) -> sawyer_xyz_env.SawyerXYZEnv | None:
    """The benchmark's environment of the task in force; None before the first task."""
    return self._simulation

  @property
  def default_parameters(self) -> tuple[float, ...]:
    """A goal of the family's first environment."""
    return _default_parameters(self._train_names()[0])

  @abc.abstractmethod
  def _train_names(self) -> tuple[str, ...]:
    """Returns the names of the environments trained on."""

  @abc.abstractmethod
  def _test_names(self) -> tuple[str, ...]:
    """Returns the names of the environments tested on."""

  @abc.abstractmethod
  def _make_benchmark(self, seed: int) -> metaworld.Benchmark:
    """Returns the benchmark, with goals drawn from a seed."""

  def sample_tasks(self, num_tasks: int, seed: int) -> list[types.Task]:
    """Takes training tasks of the benchmark, see `sample_task_split`.

    Args:
      num_tasks: How many, at least 1.
      seed: The benchmark's seed, in [0, 2**32 - 2].

    Returns:
      `num_tasks` tasks with indices 0, 1, ...

    Raises:
      ValueError: On more tasks than the benchmark has, or a seed out of range.
    """
    return _numbered(_spread(self._benchmark(seed).train_tasks, num_tasks, 'training'), start=0)

  def sample_task_split(
    self, num_train: int, num_test: int, seed: int
  ) -> tuple[list[types.Task], list[types.Task]]:
    """Takes tasks of the benchmark's own two sets.

    Of each set the environments take turns, so that any number of tasks is spread over all of them:
    first one goal of each, then a second one of each, and so on. The benchmark has 50 goals of each
    environment. Drawing all of them takes about 0.4 s for each environment, whatever the numbers.

    Args:
      num_train: How many training tasks, at least 1.
      num_test: How many test tasks, at least 1.
      seed: The benchmark's seed, in [0, 2**32 - 2].

    Returns:
      Training tasks with indices from 0 and test tasks with the indices that follow.

    Raises:
      ValueError: On more tasks than the benchmark has, or a seed out of range.
    """
    benchmark = self._benchmark(seed)
    train = _spread(benchmark.train_tasks, num_train, 'training')
    test = _spread(benchmark.test_tasks, num_test, 'test')
    return _numbered(train, start=0), _numbered(test, start=num_train)

  def _benchmark(self, seed: int) -> metaworld.Benchmark:
    if not 0 <= seed <= _MAX_BENCHMARK_SEED:
      raise ValueError(
        f'The seed of tasks of Meta-World must be in [0, {_MAX_BENCHMARK_SEED}], got {seed}.'
      )
    return self._make_benchmark(seed)

  def apply_task(self, parameters: np.ndarray) -> None:
    """Makes the environment of a task if need be, and sets the goal by its own `set_task`.

    Raises:
      ValueError: If the parameters name no environment of this family, or a goal that this
        environment does not draw.
    """
    name = self._environment_name(parameters[0])
    environment_class = env_dict.ALL_V3_ENVIRONMENTS[name]
    if type(self._simulation) is not environment_class:
      self.close()
      self._simulation = environment_class(render_mode=self.render_mode, **self._render_arguments)
    drawn = _within_bounds(parameters[1:], self._simulation, name)
    self._simulation.set_task(_benchmark_task(name, drawn))

  def _environment_name(self, number: float) -> str:
    names = (*self._train_names(), *self._test_names())
    numbers = {float(ENVIRONMENT_NAMES.index(name)): name for name in names}
    if float(number) not in numbers:
      raise ValueError(
        f'The first parameter of a task of {type(self).__name__} is the number of an environment, '
        f'one of {sorted(map(int, numbers))}, got {number}.'
      )
    return numbers[float(number)]

  def describe_task(self, task: types.Task) -> str:
    """The name of the environment and what was drawn for the goal."""
    drawn = ' '.join(f'{value:.2f}' for value in task.parameters[1:])
    return f'{self._environment_name(task.parameters[0])} ({drawn})'

  def reset(
    self, *, seed: int | None = None, options: dict[str, Any] | None = None
  ) -> tuple[np.ndarray, dict[str, Any]]:
    """Starts an episode; it always starts alike, as all that varies is in the task."""
    super().reset(seed=seed, options=options)
    if self._simulation is None:
      self.set_task(self.task)
    observation, _ = self._simulation.reset()
    return observation.astype(np.float32), {}

  def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
    """Advances by 0.0125 s; `info` has `success` and the terms of the reward.

    Raises:
      ResetNeeded: Before the first reset.
    """
    if self._simulation is None:
      raise gymnasium.error.ResetNeeded('Call reset before step.')
    observation, reward, terminated, truncated, info = self._simulation.step(action)
    if self.render_mode == 'human':
      self.render()
    return observation.astype(np.float32), float(reward), terminated, truncated, info

  def render(self) -> np.ndarray | None:
    """Renders the environment of the task in force; None before the first one."""
    return None if self._simulation is None else self._simulation.render()

  def close(self) -> None:
    """Closes the environment of the task in force."""
    if self._simulation is not None:
      self._simulation.close()
      self._simulation = None


class MetaWorldML1(MetaWorld):
  """One environment, other goals: 50 to train on and 50 to test on."""

  def __init__(self, *, env_name: str = 'reach-v3', **kwargs):
    """Makes the family of an environment.

    Args:
      env_name: One of `ENVIRONMENT_NAMES`.
      **kwargs: See `MetaWorld`.

    Raises:
      ValueError: If there is no such environment.
    """
    if env_name not in ENVIRONMENT_NAMES:
      close = difflib.get_close_matches(str(env_name), ENVIRONMENT_NAMES, n=3, cutoff=0.4)
      raise ValueError(
        f'Meta-World has no environment {env_name!r}. '
        f'{f"Did you mean {close}? " if close else ""}Known: {", ".join(ENVIRONMENT_NAMES)}.'
      )
    super().__init__(**kwargs)
    self._env_name = env_name

  def _train_names(self) -> tuple[str, ...]:
    return (self._env_name,)

  def _test_names(self) -> tuple[str, ...]:
    return (self._env_name,)

  def _make_benchmark(self, seed: int) -> metaworld.Benchmark:
    return metaworld.ML1(self._env_name, seed=seed)


class MetaWorldML10(MetaWorld):
  """Ten environments to train on and five others to test on, 50 goals of each."""

  def _train_names(self) -> tuple[str, ...]:
    return tuple(env_dict.ML10_V3['train'])

  def _test_names(self) -> tuple[str, ...]:
    return tuple(env_dict.ML10_V3['test'])

  def _make_benchmark(self, seed: int) -> metaworld.Benchmark:
    return metaworld.ML10(seed=seed)


class MetaWorldML45(MetaWorld):
  """Forty-five environments to train on and five others to test on, 50 goals of each."""

  def _train_names(self) -> tuple[str, ...]:
    return tuple(env_dict.ML45_V3['train'])

  def _test_names(self) -> tuple[str, ...]:
    return tuple(env_dict.ML45_V3['test'])

  def _make_benchmark(self, seed: int) -> metaworld.Benchmark:
    return metaworld.ML45(seed=seed)


def _spread(tasks: list[metaworld.Task], number: int, what: str) -> list[metaworld.Task]:
  """Returns so many of the benchmark's tasks, the environments taking turns."""
  if not 1 <= number <= len(tasks):
    raise ValueError(
      f'The benchmark has {len(tasks)} {what} tasks, 50 goals of each environment, but {number} '
      'are asked for.'
    )
  num_environments = len({task.env_name for task in tasks})
  order = np.arange(len(tasks)).reshape(num_environments, -1).T.ravel()
  return [tasks[index] for index in order[:number]]


def _numbered(tasks: list[metaworld.Task], *, start: int) -> list[types.Task]:
  """Returns the benchmark's tasks as ours, with indices from `start` on."""
  return [
    types.Task(index, np.asarray(_parameters(task), np.float32))
    for index, task in enumerate(tasks, start=start)
  ]


def _parameters(task: metaworld.Task) -> tuple[float, ...]:
  """Returns the parameters that stand for a task of the benchmark."""
  drawn = pickle.loads(task.data)['rand_vec']
  padding = (0.0,) * (_MAX_DRAWN - len(drawn))
  return (float(ENVIRONMENT_NAMES.index(task.env_name)), *map(float, drawn), *padding)


def _benchmark_task(name: str, drawn: np.ndarray) -> metaworld.Task:
  """Returns the benchmark's task of an environment and a goal, which the observation hides."""
  data = {
    'env_cls': env_dict.ALL_V3_ENVIRONMENTS[name],
    'rand_vec': drawn,
    'partially_observable': True,
  }
  return metaworld.Task(env_name=name, data=pickle.dumps(data))


def _within_bounds(
  padded: np.ndarray, simulation: sawyer_xyz_env.SawyerXYZEnv, name: str
) -> np.ndarray:
  """Returns what an environment drew, float64, without padding and within the bounds it draws in.

  Raises:
    ValueError: If it would not have drawn that.
  """
  space = simulation._random_reset_space  # The benchmark has no public name for it.
  drawn = padded[: space.low.size].astype(np.float64)
  clipped = np.clip(drawn, space.low, space.high)
  if np.abs(drawn - clipped).max() > _TOLERANCE or padded[space.low.size :].any():
    raise ValueError(
      f'{name} draws {space.low.size} numbers between {space.low} and {space.high} for a goal, and '
      f'zeros fill the rest; got {padded}.'
    )
  return clipped


@functools.cache
def _default_parameters(name: str) -> tuple[float, ...]:
  """Returns the first training goal of an environment with seed 0."""
  return _parameters(metaworld.ML1(name, seed=0).train_tasks[0])


def _support_simulator() -> None:
  """Lets the benchmark run on MuJoCo 4, in which constraints have one number more.

  The benchmark assigns rows of 11 numbers to `eq_data`. The twelfth, nonzero where the XML file
  gives a weld no relative pose, asks for that pose to be computed anew when the model is changed;
  the benchmark's rows give it.
  """
  if mujoco.mjNEQDATA > 11:
    sawyer_xyz_env.SawyerMocapBase.reset_mocap_welds = _reset_mocap_welds


def _reset_mocap_welds(simulation: sawyer_xyz_env.SawyerMocapBase) -> None:
  """The benchmark's method of this name, for rows of any length."""
  model = simulation.model
  if model.nmocap == 0:
    return
  welds = model.eq_type == mujoco.mjtEq.mjEQ_WELD
  # Anchor (3), relative position (3) and orientation (4), torque per force.
  row = np.zeros(model.eq_data.shape[1])
  row[:11] = (0, 0, 0, 0, 0, 0, -1, 0, 0, 0, 5)
  model.eq_data[welds] = row
