"""The contract of a task family: a gymnasium environment whose task can be drawn and set.

This module owns `MetaEnv`, the base class that all families here share and that a user's own family
may share; it simulates nothing. The registry builds families by name and the adapter steps them.

A family of your own is one class (`docs/environments.md` has a complete one):

    class MyFamily(meta_env.MetaEnv):
      parameter_names = ('goal',)
      default_parameters = (0.5,)
      observation_space = ...
      action_space = ...

      def sample_parameters(self, num_tasks, random_state):   # [num_tasks, P]
        return random_state.uniform(0.0, 1.0, size=(num_tasks, 1))

      def reset(self, *, seed=None, options=None): ...        # draws from self.np_random only
      def step(self, action): ...                             # reads self.task.parameters

What of it any environment has, be it in a wrapper, `attribute` and `missing_methods` tell;
`sample_tasks` draws from it and checks the list.
"""

from typing import Any

import gymnasium
import numpy as np

from pearl_tf.data import types

# What `np.random.RandomState` accepts.
_MAX_SEED = 2**32 - 1
# A task that comes from no list (the default of an environment nobody gave a task).
DEFAULT_TASK_INDEX = -1


class Diverged(RuntimeError):
  """To be raised by `step`: the simulation is beyond repair, and its episode to be thrown away."""


def attribute(env: gymnasium.Env, name: str, default: Any) -> Any:
  """Returns an attribute of the outermost layer of an environment that has it, or `default`."""
  return env.get_wrapper_attr(name) if env.has_wrapper_attr(name) else default


def missing_methods(env: gymnasium.Env) -> list[str]:
  """Returns the names of those methods of a family that no layer of an environment has."""
  return [name for name in ('sample_tasks', 'set_task') if not callable(attribute(env, name, None))]


def sample_tasks(env: gymnasium.Env, num_tasks: int, seed: int) -> list[types.Task]:
  """Draws tasks from the outermost layer of an environment that knows how, see `MetaEnv`.

  Raises:
    TypeError, ValueError: as `checked_tasks`, and what the family raises.
  """
  method = env.get_wrapper_attr('sample_tasks')
  return checked_tasks(method(num_tasks, seed), num_tasks, method.__qualname__)


def checked_tasks(returned: Any, num_tasks: int, source: str) -> list[types.Task]:
  """Returns what a family gave for a list of tasks, with parameters `[P] float32`.

  Args:
    returned: what it returned.
    num_tasks: how many tasks it was asked for.
    source: family and method, for the message.

  Raises:
    TypeError: if that is not a list of `types.Task`.
    ValueError: if there are fewer or more, their indices are not 0, 1, ..., or their parameters
      are not as many finite numbers in each.
  """
  expected = f'expected a list of {num_tasks} pearl_tf.data.types.Task(index, parameters)'
  if not isinstance(returned, list | tuple):
    raise TypeError(f'{source} returned {_short(returned)}, {expected}.')
  if len(returned) != num_tasks:
    raise ValueError(f'{source} returned {len(returned)} tasks, {expected}.')
  tasks = []
  for position, task in enumerate(returned):
    if not isinstance(task, types.Task):
      raise TypeError(f'{source} returned {_short(task)} at position {position}, {expected}.')
    if task.index != position:
      raise ValueError(
        f'{source} returned a task with index {task.index!r} at position {position}; number them '
        '0, 1, 2, ...'
      )
    try:
      parameters = np.array(task.parameters, dtype=np.float32)
    except (TypeError, ValueError) as error:
      raise TypeError(f'{source}: the parameters of {_short(task)} are no numbers.') from error
    shape = tasks[0].parameters.shape if tasks else parameters.shape
    if parameters.ndim != 1 or parameters.shape != shape or not np.isfinite(parameters).all():
      raise ValueError(
        f'{source}: the parameters of {_short(task)} must be a vector of finite numbers, as long '
        'in all tasks.'
      )
    tasks.append(types.Task(position, parameters))
  return tasks


def _short(value: Any) -> str:
  text = repr(value)
  return text if len(text) <= 80 else f'{text[:77]}...'


class MetaEnv(gymnasium.Env):
  """A gymnasium environment with tasks.

  A subclass names its parameters, says how to draw them and what a new task changes. A task stays
  in force across resets until another is set; set it between episodes. All randomness of an episode
  comes from `self.np_random`, all randomness of a task list from the seed of `sample_tasks`; the
  global numpy stream is never touched.

  Attributes:
    parameter_names: Names of the task's parameters, in the order of `Task.parameters`. May be left
      empty where the number of parameters depends on the model (override `num_parameters` then).
    default_parameters: The parameters in force while no task has been set.
    has_sparse_reward: Whether each `step` puts `info['sparse_reward']`, which the encoder is shown
      and returns are reported in; absent from `info` where this is False.
    fixed_task_count: The number of tasks where the family is a fixed list, the same for training
      and testing, whatever the seed; None where tasks are drawn.
    action_names: Names of the entries of an action, for the manifest of exports; None for none.
    observation_names: The same of an observation.
    is_plane: Whether the observation is a position in the plane and the first two parameters of a
      task are a goal there; such tasks are drawn as paths.
    goal_radius: In the plane, how near to the goal a sparse reward begins; 0 where there is none.
    steps_in_threads: Whether several of them may be stepped side by side in threads: they share
      nothing that changes, and `step` spends its time outside of the interpreter's lock.
    has_picture_size: Whether the constructor takes `width` and `height` of what `render` returns.
  """

  action_names: tuple[str, ...] | None = None
  observation_names: tuple[str, ...] | None = None
  parameter_names: tuple[str, ...] = ()
  default_parameters: tuple[float, ...] = ()
  has_sparse_reward: bool = False
  fixed_task_count: int | None = None
  is_plane: bool = False
  goal_radius: float = 0.0
  steps_in_threads: bool = False
  has_picture_size: bool = False
  _task: types.Task | None = None

  @property
  def num_parameters(self) -> int:
    """The length of `Task.parameters`."""
    return len(self.parameter_names)

  @property
  def task(self) -> types.Task:
    """The task in force; with index -1 and the default parameters before any was set."""
    if self._task is None:
      parameters = np.asarray(self.default_parameters, dtype=np.float32)
      self._task = types.Task(DEFAULT_TASK_INDEX, parameters)
    return self._task

  def sample_tasks(self, num_tasks: int, seed: int) -> list[types.Task]:
    """Draws a list of tasks, a function of its arguments only.

    The split into training and test tasks is the caller's: the first so many train.

    Args:
      num_tasks: How many, at least 1.
      seed: Seed of the private generator, in [0, 2**32 - 1].

    Returns:
      `num_tasks` tasks with indices 0, 1, ... and parameters `[P] float32`.

    Raises:
      ValueError: On a number of tasks below 1 or beyond a fixed list, or a seed out of range.
    """
    if num_tasks < 1:
      raise ValueError(f'num_tasks must be at least 1, got {num_tasks}.')
    if self.fixed_task_count is not None and num_tasks > self.fixed_task_count:
      raise ValueError(
        f'{type(self).__name__} is a fixed list of {self.fixed_task_count} tasks, used for '
        f'training and testing alike, but num_tasks is {num_tasks}: ask for at most '
        f'{self.fixed_task_count} and test on the training tasks.'
      )
    if not 0 <= seed <= _MAX_SEED:
      raise ValueError(f'The seed of a task list must be in [0, {_MAX_SEED}], got {seed}.')
    parameters = self.sample_parameters(num_tasks, np.random.RandomState(seed))
    parameters = np.asarray(parameters, dtype=np.float32)
    expected = (num_tasks, self.num_parameters)
    if parameters.shape != expected:
      raise ValueError(
        f'{type(self).__name__}.sample_parameters returned an array of shape {parameters.shape}; '
        f'expected [num_tasks, P] = {expected}.'
      )
    return [types.Task(index, row) for index, row in enumerate(parameters)]

  def oracle_return(self, task: types.Task, start: np.ndarray, num_steps: int) -> float | None:
    """Returns the dense return of an agent that knows the task, the ceiling of adaptation.

    Args:
      task: The task.
      start: `[O]`, the first observation.
      num_steps: Length of the episode.

    Returns:
      The return; None where the family does not know it.
    """
    return None

  def sample_parameters(self, num_tasks: int, random_state: np.random.RandomState) -> np.ndarray:
    """Draws the parameters of a task list; needed where `sample_tasks` is not overridden.

    Args:
      num_tasks: How many tasks, at least 1.
      random_state: The private generator to draw from. A legacy `RandomState`, because the lists of
        the published experiments are what that stream yields.

    Returns:
      `[num_tasks, P]`, floats.
    """
    message = f'{type(self).__name__} must implement sample_parameters or override sample_tasks.'
    raise NotImplementedError(message)  # Not abstract: Meta-World overrides `sample_tasks`.

  def set_task(self, task: types.Task) -> None:
    """Puts a task in force from the next `reset` on; never resets by itself.

    Args:
      task: The task, of this family.

    Raises:
      TypeError: If `task` is not a `types.Task`.
      ValueError: If its parameters are not `[P]` finite numbers.
    """
    if not isinstance(task, types.Task):
      raise TypeError(f'set_task takes a pearl_tf.data.types.Task, got {type(task).__name__}.')
    # A copy: nobody may change this environment's task from outside.
    parameters = np.array(task.parameters, dtype=np.float32)
    if parameters.shape != (self.num_parameters,):
      names = ', '.join(self.parameter_names)
      raise ValueError(
        f'{type(self).__name__} takes {self.num_parameters} task parameters'
        f'{f" ({names})" if names else ""}, got shape {parameters.shape} in {task}.'
      )
    if not np.isfinite(parameters).all():
      raise ValueError(f'{type(self).__name__} got a task that is not finite: {task}.')
    self._task = types.Task(int(task.index), parameters)
    self.apply_task(parameters)

  def describe_task(self, task: types.Task) -> str:
    """Says in a few words what a task asks for, for people: in videos and tables.

    Override it where units or words say more than the names of the parameters.

    Args:
      task: A task of this family, in force or not.
    """
    if not self.parameter_names:
      return f'task {task.index}'
    pairs = zip(self.parameter_names, task.parameters, strict=True)
    return ', '.join(f'{name} {value:.2f}' for name, value in pairs)

  def apply_task(self, parameters: np.ndarray) -> None:
    """Called with the validated parameters `[P] float32` whenever a task is set.

    Override it to derive what each step needs (a goal as Python floats, a changed model).
    """
