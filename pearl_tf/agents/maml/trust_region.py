"""The arithmetic of a trust region: a direction and how far to go, on plain vectors.

References: Schulman et al. 2015, arXiv:1502.05477, appendix C; Nocedal and Wright, Numerical
Optimization, algorithm 5.2.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

_SMALL = 1e-8


class Step(NamedTuple):
  """Where a line search ended.

  Attributes:
    parameters: `[P]`; those it began with if nothing was accepted.
    tries: points tried.
    accepted: whether one was accepted.
    loss: there.
    kl: there.
  """

  parameters: np.ndarray
  tries: int
  accepted: bool
  loss: float
  kl: float


def conjugate_gradient(
  product: Callable[[np.ndarray], np.ndarray],
  target: np.ndarray,
  *,
  iterations: int,
  tolerance: float = 1e-10,
) -> np.ndarray:
  """Returns an approximate solution `[P]` of `H x = target`.

  Args:
    product: returns `H v`, H symmetric and positive definite.
    target: `[P]`.
    iterations: at most so many products.
    tolerance: on the squared norm of what is left.
  """
  solution = np.zeros_like(target)
  residual, direction = target.copy(), target.copy()
  squared = residual @ residual
  for _ in range(iterations):
    if squared < tolerance:
      break
    image = product(direction)
    length = squared / (direction @ image)
    solution += length * direction
    residual -= length * image
    new_squared = residual @ residual
    direction = residual + new_squared / squared * direction
    squared = new_squared
  return solution


def full_step(
  product: Callable[[np.ndarray], np.ndarray], direction: np.ndarray, *, max_kl: float
) -> np.ndarray:
  """Returns the multiple `[P]` of a direction whose quadratic KL is `max_kl`."""
  return np.sqrt(2 * max_kl / (direction @ product(direction) + _SMALL)) * direction


def line_search(
  evaluate: Callable[[np.ndarray], tuple[float, float]],
  parameters: np.ndarray,
  step: np.ndarray,
  *,
  max_kl: float,
  backtrack: float,
  max_tries: int,
) -> Step:
  """Goes against a step, ever shorter, until the loss has fallen within the trust region.

  Args:
    evaluate: parameters to loss and KL.
    parameters: `[P]`, the start.
    step: `[P]`; a step that is not finite is never accepted.
    max_kl: the region.
    backtrack: in (0, 1), the factor of the next try.
    max_tries: at most.
  """
  loss, kl = start = evaluate(parameters)
  for tries in range(1, max_tries + 1):
    candidate = parameters - backtrack ** (tries - 1) * step
    loss, kl = evaluate(candidate)
    if loss < start[0] and kl <= max_kl:  # False if one of them is not a number.
      return Step(candidate, tries, True, loss, kl)
  return Step(parameters, max_tries, False, *start)
