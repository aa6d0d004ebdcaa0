"""Loads the learning curves of others that ship with the package.

This module knows the files beside it and their sources; it draws nothing. `evaluation.plots` puts
the curves beside those of a run, and `trainers.plot` lets a user name them.
"""

import csv
from importlib import resources
from typing import NamedTuple

import numpy as np

_PACKAGE = 'pearl_tf.evaluation.reference_curves'
_AUTHORS_PREFIX = 'authors-'
# The peer counts its hours from its first evaluation, the run of the authors' code from its start.
_HOURS_COLUMNS = ('hours_since_start', 'hours_since_first_point')


class Curve(NamedTuple):
  """A learning curve: test return over the cost of getting there.

  Attributes:
    label: What the legend calls it.
    env_steps: `[K] float64`, training transitions collected, increasing.
    hours: `[K] float64`, wall clock; NaN where it was not recorded.
    test_return: `[K] float64`, final return averaged over the test tasks.
  """

  label: str
  env_steps: np.ndarray
  hours: np.ndarray
  test_return: np.ndarray


def available() -> list[str]:
  """Returns the names of the domains that have a reference curve, sorted."""
  return sorted(name for name in _file_stems() if not name.startswith(_AUTHORS_PREFIX))


def load(domain: str) -> list[Curve]:
  """Loads the curves measured by others on a domain.

  Args:
    domain: One of `available()`, for example `'cheetah-vel'`.

  Returns:
    The peer's curve, followed by that of the authors' code where there is one.

  Raises:
    ValueError: No curve ships for this domain; the message lists those that do.
  """
  if domain not in available():
    raise ValueError(
      f'no reference curve for {domain!r}; available are {", ".join(available())} '
      '(or leave the reference out)'
    )
  curves = [_read(domain, label='peer (x35f/meta_rl, 1 seed)')]
  authors = _AUTHORS_PREFIX + domain
  if authors in _file_stems():
    curves.append(_read(authors, label="authors' code (oyster, 1 seed)"))
  return curves


def _file_stems() -> list[str]:
  files = resources.files(_PACKAGE).iterdir()
  return [file.name.removesuffix('.csv') for file in files if file.name.endswith('.csv')]


def _read(stem: str, *, label: str) -> Curve:
  text = resources.files(_PACKAGE).joinpath(f'{stem}.csv').read_text(encoding='utf-8')
  rows = list(csv.DictReader(text.splitlines()))
  hours_column = next(name for name in _HOURS_COLUMNS if name in rows[0])

  def column(name: str) -> np.ndarray:
    return np.array([float(row[name]) for row in rows])

  return Curve(
    label=label,
    env_steps=column('env_steps'),
    hours=column(hours_column),
    test_return=column('test_return'),
  )
