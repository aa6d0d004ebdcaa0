"""From the name of a task family to an environment.

This module owns the lookup: gymnasium ids, classes given as 'module:Class', and the messages for
what is neither. It defines no family. Experiments call `make` with the name bound in gin:

    registry.make.name = 'pearl/HalfCheetahVel-v0'      # one of ours
    registry.make.name = 'my_package.my_family:MyFamily'  # a class of yours, nothing to register

Public API: `make(name, **kwargs) -> gymnasium.Env`. Tasks are drawn from and set on the outermost
layer of it, be it a wrapper, that has the methods.
"""

import difflib
import importlib
import inspect
import re
from collections.abc import Callable
from typing import Any

import gin
import gymnasium
from gymnasium.envs import registration

from pearl_tf import environments
from pearl_tf.environments import meta_env

_HOW_TO_ADD = (
  'For a family of your own write a class with sample_tasks and set_task and name it as '
  "'module:Class', for example registry.make.name = 'my_package.my_family:MyFamily'."
)


@gin.configurable
def make(name: str = gin.REQUIRED, **kwargs) -> gymnasium.Env:
  """Makes an environment of a task family.

  Args:
    name: A gymnasium id ('pearl/PointRobot-v0'), a class ('module:Class'), or an id that a module
      registers when imported ('module:Name-v0').
    **kwargs: Passed to the constructor, for example `render_mode='rgb_array'`.

  Returns:
    The environment, of which some layer has `sample_tasks` and `set_task`. It is bare unless its
    registration asked for wrappers (a time limit ...).

  Raises:
    ValueError: If nothing has this name, or it needs an optional part that is not installed.
    TypeError: If what has this name is not a family of tasks.
  """
  found, env_id = _find(name)
  try:
    env = _instantiate(found, name, kwargs) if env_id is None else _make_id(env_id, kwargs)
  except TypeError as error:
    unexpected = re.search("unexpected keyword argument '(.*?)'", str(error))
    if unexpected is None or unexpected[1] not in kwargs:
      raise
    raise ValueError(
      f'Environment {name!r} takes no argument {unexpected[1]!r}: remove registry.make.'
      f'{unexpected[1]}.'
    ) from error
  _check_contract(env, name)
  return env


def constructor(name: str) -> tuple[Callable[..., gymnasium.Env], dict[str, Any]]:
  """Returns what `make` calls for a name, and the arguments that a registration gives it.

  Raises:
    ValueError: As `make`.
  """
  found, env_id = _find(name)
  if env_id is None:
    return found, {}
  spec = gymnasium.spec(env_id)
  entry_point = spec.entry_point
  if isinstance(entry_point, str):
    entry_point = registration.load_env_creator(entry_point)
  return entry_point, spec.kwargs


def _find(name: str) -> tuple[Any, str | None]:
  """Returns what a module has under the name, or else the id that gymnasium has."""
  if not isinstance(name, str) or not name.strip():
    raise ValueError(f'The name of an environment must be a text, got {name!r}. {_known_ids()}')
  module_name, _, attribute = name.rpartition(':')
  if module_name:
    module = _import_module(module_name, name)
    found = getattr(module, attribute, None)
    if found is not None:
      return found, None
    if attribute in gymnasium.registry:
      return None, attribute
    raise ValueError(
      f'Environment {name!r}: module {module_name!r} has no class {attribute!r} and registers no '
      f'such id with gymnasium. {_close_matches(attribute, _public_classes(module))}'
    )
  if name in gymnasium.registry:
    return None, name
  raise ValueError(
    f'Unknown environment {name!r}. {_close_matches(name, _our_ids())}{_known_ids()} {_HOW_TO_ADD}'
  )


def _import_module(module_name: str, name: str) -> Any:
  """Imports, telling a module that is missing from one that fails."""
  try:
    return importlib.import_module(module_name)
  except ModuleNotFoundError as error:
    missing = error.name or ''
    if missing != module_name and not module_name.startswith(f'{missing}.'):
      raise  # The module exists, one that it imports does not: that message says it best.
    raise ValueError(
      f'Environment {name!r}: there is no module {module_name!r} to import; is its folder the '
      f'working directory or on PYTHONPATH? {_known_ids()} {_HOW_TO_ADD}'
    ) from error


def _instantiate(found: Any, name: str, kwargs: dict[str, Any]) -> gymnasium.Env:
  """Calls a class or a function that returns an environment."""
  if not callable(found):
    raise TypeError(f'Environment {name!r} must name a class, it names {found!r}.')
  return found(**kwargs)


def _make_id(env_id: str, kwargs: dict[str, Any]) -> gymnasium.Env:
  """Makes a registered environment, without wrappers that only check."""
  try:
    env = gymnasium.make(env_id, disable_env_checker=True, **kwargs)
  except ModuleNotFoundError as error:
    if env_id not in environments.EXTRA_FAMILIES:
      raise
    raise ValueError(f'Environment {env_id!r}: {error}') from error
  if type(env) is gymnasium.wrappers.OrderEnforcing and env.env is env.unwrapped:
    return env.unwrapped
  return env


def _check_contract(env: gymnasium.Env, name: str) -> None:
  if not isinstance(env, gymnasium.Env):
    raise TypeError(
      f'Environment {name!r} made a {type(env).__name__}, which is no gymnasium.Env; derive it '
      'from pearl_tf.environments.meta_env.MetaEnv.'
    )
  missing = meta_env.missing_methods(env)
  if missing:
    raise TypeError(
      f'Environment {name!r} is not a family of tasks: it lacks {" and ".join(missing)}. Derive it '
      'from pearl_tf.environments.meta_env.MetaEnv, or define sample_tasks(num_tasks, seed) and '
      'set_task(task), in the environment or in a wrapper.'
    )


def _close_matches(name: str, candidates: list[str]) -> str:
  matches = difflib.get_close_matches(name, candidates, n=3, cutoff=0.4)
  return f'Did you mean {" or ".join(repr(match) for match in matches)}? ' if matches else ''


def _known_ids() -> str:
  return f'Known: {", ".join(_our_ids())}.'


def _our_ids() -> list[str]:
  return sorted(environments.FAMILIES | environments.EXTRA_FAMILIES)


def _public_classes(module: Any) -> list[str]:
  return [key for key, value in vars(module).items() if inspect.isclass(value) and key[0] != '_']
