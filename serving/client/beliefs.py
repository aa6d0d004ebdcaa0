"""Beliefs, and the calls that make them: rows of many tasks at once, padded and split.

The natural parameters of a belief add, so a client carries all that a server needs. This module
knows neither episodes nor versions: `session` decides when to call, and on which version.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from serving.client import channel, errors

# Contexts are padded to one of these lengths, so that calls of several clients fit into one batch,
# and the server meets few shapes.
LENGTHS = (1, 16, 64, 256, 1024, 4096)
# Rows and numbers of one call, half a mebibyte: below the limits of a server.
_MAX_ROWS = 256
_MAX_ELEMENTS = 2**17
_REFUSAL = 'update is not supported'


class Belief(NamedTuple):
  """What is believed of one task.

  That of 7 and 5 transitions is that of all 12, but for the last bits of float32 sums, which depend
  on the order.

  Attributes:
    eta: `[L] float32`, sum of mean / variance over the transitions.
    precision: `[L] float32`, sum of 1 / variance; `[L * L]` of a linear-Gaussian encoder.
    count: transitions it came from; 0 for the prior.
    latent_tag: the latent space it lives in.
    version: the version of the model that computed it.
    mean: `[L] float32` of the Gaussian over the latent.
    variance: `[L] float32`; zero where the model's latent is deterministic.
  """

  eta: np.ndarray
  precision: np.ndarray
  count: int
  latent_tag: int
  version: int
  mean: np.ndarray
  variance: np.ndarray


def encode(
  model: channel.Connection,
  version: int,
  contexts: Sequence[np.ndarray],
  budget: channel.Budget,
  *,
  splits: bool = True,
) -> list[Belief]:
  """Infers one belief per context.

  Args:
    model: a connection, or what `local.load` returned.
    version: the version that is to answer.
    contexts: `B` arrays `[N_b, C] float32`, `B` at least 1; an empty one gives the prior.
    budget: time for all calls.
    splits: whether one too long for a call may take further calls of `update`.
  """
  pieces = [_pieces(context) if splits else [context] for context in contexts]
  beliefs = _infer(model, version, 'encode', {}, [piece[0] for piece in pieces], budget)
  return _add(model, version, beliefs, [piece[1:] for piece in pieces], budget)


def update(
  model: channel.Connection,
  beliefs: Sequence[Belief],
  contexts: Sequence[np.ndarray],
  budget: channel.Budget,
) -> list[Belief]:
  """Adds the evidence of new transitions to beliefs of one version; see `encode`."""
  version = beliefs[0].version
  return _add(model, version, beliefs, [_pieces(context) for context in contexts], budget)


def sample(
  model: channel.Connection,
  version: int | None,
  beliefs: Sequence[Belief],
  seeds: np.ndarray,
  budget: channel.Budget,
) -> tuple[int, np.ndarray]:
  """Draws one latent per belief.

  Args:
    model: see `encode`.
    version: the version that is to answer; None for the one in force.
    beliefs: `B` beliefs.
    seeds: `[B, 2] int32`; a row's latent is a function of its belief and seed alone.
    budget: time for the call.

  Returns:
    The version that answered, and `[B, L] float32`.
  """
  inputs = {**_stack(beliefs), 'seed': seeds}
  version, outputs = run(model, 'sample_z', inputs, budget, version)
  return version, outputs['z']


def run(
  model: channel.Connection,
  signature: str,
  inputs: Mapping[str, np.ndarray],
  budget: channel.Budget,
  version: int | None = None,
) -> tuple[int, dict[str, np.ndarray]]:
  """Calls a signature, in parts where one call would be too large.

  Args:
    model: see `encode`.
    signature: its name.
    inputs: arrays of the signature's types, batch first, `B` rows.
    budget: time for all calls.
    version: the version that is to answer; None for the one in force.

  Returns:
    The version that answered and all outputs, `B` rows each.

  Raises:
    RowError: if the model refuses a row.
  """
  num_rows = len(next(iter(inputs.values())))
  widest = max(math.prod(array.shape[1:]) for array in inputs.values())
  step = max(1, min(_MAX_ROWS, _MAX_ELEMENTS // max(1, widest)))
  parts = []
  for start in range(0, num_rows, step):
    part = {name: array[start : start + step] for name, array in inputs.items()}
    version, outputs = model.predict(signature, part, budget, version)
    parts.append(outputs)
  joined = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
  return version, joined


def is_refused_update(error: Exception) -> bool:
  """Tells whether a model says that it cannot update, as one with a recurrent encoder does."""
  return isinstance(error, errors.CallError) and _REFUSAL in error.details


def _add(
  model: channel.Connection,
  version: int,
  beliefs: Sequence[Belief],
  pieces: Sequence[list[np.ndarray]],
  budget: channel.Budget,
) -> list[Belief]:
  """Adds all pieces of every context, one of each at a time."""
  beliefs = list(beliefs)
  for turn in range(max(map(len, pieces))):
    rows = [row for row, piece in enumerate(pieces) if turn < len(piece)]
    state = _stack([beliefs[row] for row in rows])
    contexts = [pieces[row][turn] for row in rows]
    for row, belief in zip(rows, _infer(model, version, 'update', state, contexts, budget)):
      beliefs[row] = belief
  return beliefs


def _infer(
  model: channel.Connection,
  version: int,
  signature: str,
  state: Mapping[str, np.ndarray],
  contexts: Sequence[np.ndarray],
  budget: channel.Budget,
) -> list[Belief]:
  longest = max(len(context) for context in contexts)
  length = next((length for length in LENGTHS if length >= longest), longest)
  padded = np.zeros([len(contexts), length, contexts[0].shape[1]], np.float32)
  for row, context in zip(padded, contexts):
    row[: len(context)] = context
  counts = np.array([len(context) for context in contexts], np.int32)
  inputs = {'context': padded, 'num_transitions': counts, **state}
  version, outputs = run(model, signature, inputs, budget, version)
  columns = {name: outputs[name] for name in Belief._fields if name != 'version'}
  return [
    Belief(
      **{
        **{name: column[row] for name, column in columns.items()},
        'count': int(columns['count'][row]),
        'latent_tag': int(columns['latent_tag'][row]),
      },
      version=version,
    )
    for row in range(len(contexts))
  ]


def _pieces(context: np.ndarray) -> list[np.ndarray]:
  """Splits a context into pieces short enough for one call, at least one."""
  fitting = [length for length in LENGTHS if length * context.shape[1] <= _MAX_ELEMENTS]
  step = fitting[-1] if fitting else 1
  return [context[start : start + step] for start in range(0, max(len(context), 1), step)]


def _stack(beliefs: Sequence[Belief]) -> dict[str, np.ndarray]:
  return {
    'eta': np.stack([belief.eta for belief in beliefs]),
    'precision': np.stack([belief.precision for belief in beliefs]),
    'count': np.array([belief.count for belief in beliefs], np.int32),
    'latent_tag': np.array([belief.latent_tag for belief in beliefs], np.int64),
  }
