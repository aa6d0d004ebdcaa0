"""What gin says of a configurable, read once: the value that stays when gin is loaded anew.

`Resolver.bind` reads the bindings in force, and those of every configurable among the arguments,
into a `Bound`. Calling that later, as often as one likes, reads gin no more.
"""

import copy
import dataclasses
import inspect
from collections.abc import Callable, Mapping
from typing import Any

import gin

from pearl_tf.experiment import config, values


@dataclasses.dataclass(frozen=True)
class Bound:
  """A class or function with every argument that gin could give it.

  Attributes:
    target: what is called.
    arguments: by name, defaults included; those of a call come before them.
  """

  target: Callable[..., Any]
  arguments: Mapping[str, Any]

  def __call__(self, *args, **kwargs) -> Any:
    """Calls the target; an argument may be given by its place only if gin cannot give it."""
    return self.target(*args, **{**self.arguments, **kwargs})


class Resolver:
  """Reads the configuration in force and remembers what of it was read."""

  def __init__(self):
    """Starts with nothing read."""
    self._read: set[tuple[str, str]] = set()

  def bind(self, target: Callable[..., Any]) -> Bound:
    """Returns a class or function with its arguments as they are bound now.

    A class takes what is bound of those that it derives from, too, as far as its constructor passes
    arguments on.

    Args:
      target: what is bound; gin need not know it.

    Raises:
      ConfigError: if an argument that has to be bound is not, or is of a wrong type.
    """
    return self._bind(target, _configurable(target))

  def _bind(self, target: Callable[..., Any], known: gin.config.Configurable | None) -> Bound:
    if not inspect.isclass(target):
      return Bound(target, {} if known is None else self._arguments(known))
    arguments = {}
    for base in reversed(target.__mro__):
      registered = known if base is target else _configurable(base)
      if registered is not None:
        arguments |= self._arguments(registered)
      elif '__init__' in base.__dict__:  # Its own defaults come before those of its bases.
        for name in inspect.signature(base.__init__).parameters:
          arguments.pop(name, None)
    parameters = inspect.signature(target).parameters
    if all(parameter.kind is not parameter.VAR_KEYWORD for parameter in parameters.values()):
      arguments = {name: value for name, value in arguments.items() if name in parameters}
    return Bound(target, arguments)

  def _arguments(self, known: gin.config.Configurable) -> dict[str, Any]:
    """Returns the arguments that gin gives a configurable, defaults included."""
    scopes = gin.current_scope()
    self._read |= {('/'.join(scopes[:i]), known.selector) for i in range(len(scopes) + 1)}
    arguments = _defaults(known) | gin.get_bindings(known.selector, resolve_references=False)
    arguments = {name: self._resolved(value) for name, value in arguments.items()}
    values.check(known.name, known.wrapped, arguments)
    missing = sorted(name for name, value in arguments.items() if value is gin.REQUIRED)
    if missing:
      names = ', '.join(f'{known.name}.{name}' for name in missing)
      raise config.ConfigError(f'the configuration has to bind {names}')
    return arguments

  def check_all_read(self) -> None:
    """Checks that every binding in force was read.

    Raises:
      ConfigError: if a binding has no effect, naming it.
    """
    found = [
      name
      for name in config.bound_names()
      if gin.config.ParsedBindingKey.parse(_binding_key(name)).config_key not in self._read
    ]
    if found:
      raise config.ConfigError(
        f'no part of this experiment reads {", ".join(sorted(found))}: remove it, or choose the '
        'part it is meant for'
      )

  def _resolved(self, value: Any) -> Any:
    """Returns a value with every configurable in it bound and every macro replaced."""
    if isinstance(value, gin.config.ConfigurableReference):
      with gin.config_scope(value.scopes):
        if value.configurable.module == 'gin' and value.configurable.name != 'macro':
          return copy.deepcopy(value)  # A constant or a singleton, gin's own.
        bound = self._bind(value.configurable.wrapped, value.configurable)
        return bound() if value.evaluate else bound
    if isinstance(value, list | tuple) and not hasattr(value, '_fields'):
      return type(value)(self._resolved(item) for item in value)
    if isinstance(value, dict):
      return {key: self._resolved(item) for key, item in value.items()}
    return self.bind(value) if callable(value) and _configurable(value) else value


def _configurable(target: Any) -> gin.config.Configurable | None:
  """Returns what gin knows of a class or function, None if nothing."""
  if not (inspect.isclass(target) or inspect.isfunction(target)):
    return None
  try:
    known = gin.config.ConfigurableReference(
      f'{target.__module__}.{target.__name__}', False
    ).configurable
  except ValueError:
    return None
  return known if target in (known.wrapped, known.wrapper) else None


def _defaults(known: gin.config.Configurable) -> dict[str, Any]:
  """Returns the default of every argument that gin may bind."""
  parameters = inspect.signature(known.wrapped).parameters.values()
  return {
    parameter.name: parameter.default
    for parameter in parameters
    if parameter.default is not parameter.empty
    and (not known.allowlist or parameter.name in known.allowlist)
    and parameter.name not in (known.denylist or ())
  }


def _binding_key(name: str) -> str | tuple[str, str, str]:
  """Returns what stands for a bound name in gin's registry: a macro's name is its scope."""
  return name if '.' in name.rpartition('/')[2] else (name, 'gin.macro', 'value')
