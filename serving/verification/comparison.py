"""Whether two runs of a call gave the same answer."""

from collections.abc import Mapping

import numpy as np

# A batch of another size takes other matrix kernels, and sums of evidence are as large as 1e7 per
# transition: the last bits move, in proportion to the largest number that was added.
RELATIVE = 1e-5
ABSOLUTE = 1e-6


def problems(
  expected: Mapping[str, np.ndarray], actual: Mapping[str, np.ndarray], *, exact: bool = False
) -> list[str]:
  """Compares answers, output by output.

  Args:
    expected: array by output name.
    actual: the same of the other run.
    exact: demand equal bits rather than equal numbers.

  Returns:
    One line for each output that differs; NaN equals NaN.
  """
  if set(expected) != set(actual):
    return [f'outputs {sorted(actual)} instead of {sorted(expected)}']
  found = []
  for name in sorted(expected):
    if text := _difference(np.asarray(expected[name]), np.asarray(actual[name]), exact):
      found.append(f'output {name!r}: {text}')
  return found


def largest_difference(
  expected: Mapping[str, np.ndarray], actual: Mapping[str, np.ndarray]
) -> float:
  """Returns the largest difference of finite numbers, as a part of the largest number."""
  return max((_relative(expected[name], actual[name]) for name in expected), default=0.0)


def _difference(expected: np.ndarray, actual: np.ndarray, exact: bool) -> str | None:
  if expected.dtype != actual.dtype:
    return f'{actual.dtype} instead of {expected.dtype}'
  if expected.shape != actual.shape:
    return f'shape {list(actual.shape)} instead of {list(expected.shape)}'
  inexact = np.issubdtype(expected.dtype, np.inexact)
  if exact or not inexact:
    same = np.array_equal(expected, actual, equal_nan=inexact)
  else:
    same = np.allclose(
      actual, expected, rtol=RELATIVE, atol=ABSOLUTE * _scale(expected), equal_nan=True
    )
  if same:
    return None
  return f'{_first_values(actual)} instead of {_first_values(expected)}'


def _scale(values: np.ndarray) -> float:
  return max(1.0, float(np.max(np.abs(values), where=np.isfinite(values), initial=0.0)))


def _relative(expected: np.ndarray, actual: np.ndarray) -> float:
  finite = np.isfinite(expected) & np.isfinite(actual)
  distance = np.abs(np.subtract(actual, expected, where=finite, out=np.zeros(expected.shape)))
  return float(np.max(distance, initial=0.0)) / _scale(expected)


def _first_values(values: np.ndarray) -> str:
  text = ', '.join(f'{value:.9g}' for value in values.reshape(-1)[:4])
  return f'[{text}{", ..." if values.size > 4 else ""}]'
