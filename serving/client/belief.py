"""Beliefs as a client carries them: natural parameters, which are all that a server needs."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

# How a belief goes into a call.
STATE = ('eta', 'precision', 'count', 'latent_tag')


class Belief(NamedTuple):
  """What is believed of one task.

  The natural parameters add: that of 7 and 5 transitions is that of all 12, but for the last bits
  of float32 sums, which depend on the order.

  Attributes:
    eta: `[L] float32`, sum of mean / variance over the transitions.
    precision: `[L] float32`, sum of 1 / variance.
    count: transitions it came from; 0 for the prior.
    latent_tag: the latent space it lives in.
    version: the version of the model that computed it.
    mean: `[L] float32` of the Gaussian over the latent; None where only the rest was kept.
    variance: `[L] float32`; zero where the model's latent is deterministic.
  """

  eta: np.ndarray
  precision: np.ndarray
  count: int
  latent_tag: int
  version: int
  mean: np.ndarray | None = None
  variance: np.ndarray | None = None


def stack(beliefs: Sequence[Belief]) -> dict[str, np.ndarray]:
  """Returns `B` beliefs as inputs of a call."""
  return {
    'eta': np.stack([belief.eta for belief in beliefs]).astype(np.float32, copy=False),
    'precision': np.stack([belief.precision for belief in beliefs]).astype(np.float32, copy=False),
    'count': np.array([belief.count for belief in beliefs], np.int32),
    'latent_tag': np.array([belief.latent_tag for belief in beliefs], np.int64),
  }


def unstack(outputs: dict[str, np.ndarray], version: int) -> list[Belief]:
  """Returns the beliefs in the answer of `encode` or `update`."""
  return [
    Belief(
      eta=outputs['eta'][row],
      precision=outputs['precision'][row],
      count=int(outputs['count'][row]),
      latent_tag=int(outputs['latent_tag'][row]),
      mean=outputs['mean'][row],
      variance=outputs['variance'][row],
      version=version,
    )
    for row in range(len(outputs['count']))
  ]
