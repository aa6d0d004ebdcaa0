"""Values against the types that a class or function declares for its arguments.

Ranges are checked where they are known, in constructors; this is for what they would trip over: a
text where a number is meant, `True` for 1, infinity.
"""

import inspect
import math
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import gin

from pearl_tf.experiment import config


def check(owner: str, target: Callable[..., Any], arguments: Mapping[str, Any]) -> None:
  """Checks arguments of a class or function against its annotations.

  Args:
    owner: its name in gin.
    target: the class or function; what it does not annotate may be anything.
    arguments: values by name.

  Raises:
    ConfigError: on the first value of another type, naming argument, value and what is accepted.
  """
  annotated = target.__init__ if inspect.isclass(target) else target
  hints = typing.get_type_hints(inspect.unwrap(annotated))
  for name, value in arguments.items():
    accepted = _accepted(hints.get(name, Any))
    if value is not gin.REQUIRED and accepted is not None and not accepted[1](value):
      raise config.ConfigError(f'{owner}.{name} must be {accepted[0]}, got {value!r}')


def _accepted(hint: Any) -> tuple[str, Callable[[Any], bool]] | None:
  """Returns what a hint accepts in words and as a test; None if that is anything."""
  if hint in _PLAIN:
    return _PLAIN[hint]
  origin, parts = typing.get_origin(hint), typing.get_args(hint)
  if origin in (typing.Union, types.UnionType):
    return _one_of([_accepted(part) for part in parts])
  if origin is Sequence and parts and _accepted(parts[0]) is not None:
    words, is_item = _accepted(parts[0])
    is_sequence = lambda value: isinstance(value, list | tuple) and all(map(is_item, value))  # noqa: E731
    return f'a tuple, each entry {words}', is_sequence
  if origin is Callable:
    return 'a class or function of gin, @Name', callable
  return None


def _one_of(accepted: list) -> tuple[str, Callable[[Any], bool]] | None:
  if None in accepted:
    return None
  return ' or '.join(words for words, _ in accepted), lambda value: any(
    test(value) for _, test in accepted
  )


def _is_integer(value: Any) -> bool:
  return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: Any) -> bool:
  return _is_integer(value) or (isinstance(value, float) and math.isfinite(value))


_PLAIN = {
  int: ('an integer', _is_integer),
  float: ('a finite number', _is_number),
  bool: ('True or False', lambda value: isinstance(value, bool)),
  str: ('a text', lambda value: isinstance(value, str)),
  type(None): ('None', lambda value: value is None),
}
