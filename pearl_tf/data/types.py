"""The data that flows through PEARL, as named tuples of arrays or tensors.

This module owns the vocabulary: every other layer speaks in these types. It computes nothing.
Leading dimensions are letters fixed for the whole code base: `T` tasks in a meta-batch, `N`
context transitions, `B` RL transitions per task (or parallel trials when acting), `S` steps of an
episode, `O` observation, `A` action and `Z` latent size.
"""

from typing import NamedTuple

import numpy as np
import tensorflow as tf

Array = np.ndarray | tf.Tensor


class Task(NamedTuple):
  """One member of a task family: plain data, saved in `tasks.json`.

  Attributes:
    index: Position in the list of sampled tasks; names the task's replay tables.
    parameters: `[P] float32`, what distinguishes the task (a direction, a goal, a velocity in m/s,
      the multipliers of the dynamics), in the order its environment documents.
  """

  index: int
  parameters: np.ndarray


class Transition(NamedTuple):
  """One step of interaction, or a batch of them.

  Attributes:
    observation: `[..., O] float32`.
    action: `[..., A] float32` in [-1, 1], before it is scaled to the environment's bounds.
    reward: `[...] float32`, dense and unscaled.
    discount: `[...] float32`, 0 only where the environment terminated; a time limit keeps 1.
    next_observation: `[..., O] float32`.
  """

  observation: Array
  action: Array
  reward: Array
  discount: Array
  next_observation: Array


class Step(NamedTuple):
  """What a task environment returns at the beginning of an episode and for each of its steps.

  Attributes:
    observation: `[O] float32`.
    reward: dense and unscaled; 0 at the beginning.
    context_reward: the sparse reward where the task has one, else `reward`.
    discount: 0 where the environment terminated, else 1.
    is_last: whether the episode has ended.
    success: 1 if any step of the episode so far succeeded, else 0; None where the environment does
      not say.
  """

  observation: np.ndarray
  reward: float = 0.0
  context_reward: float = 0.0
  discount: float = 1.0
  is_last: bool = False
  success: float | None = None


class Episode(NamedTuple):
  """A whole trajectory as the replay stores it: `S` transitions of one task.

  Attributes:
    observation: `[S, O] float32`.
    action: `[S, A] float32` in [-1, 1].
    reward: `[S] float32`, the dense reward the critics learn from.
    context_reward: `[S] float32`, what the encoder is shown and what returns are reported in: the
      sparse reward where the task has one, else equal to `reward`.
    discount: `[S] float32`, 0 only on true termination.
    next_observation: `[S, O] float32`.
  """

  observation: np.ndarray
  action: np.ndarray
  reward: np.ndarray
  context_reward: np.ndarray
  discount: np.ndarray
  next_observation: np.ndarray


class ContextBatch(NamedTuple):
  """The transitions from which a task is inferred.

  Attributes:
    observation: `[T, N, O] float32`.
    action: `[T, N, A] float32`.
    reward: `[T, N] float32`, the *context* reward (sparse where the task has one).
    next_observation: `[T, N, O] float32`.
    mask: `[T, N] float32`, 1 for a transition and 0 for padding.
  """

  observation: Array
  action: Array
  reward: Array
  next_observation: Array
  mask: Array


class MetaBatch(NamedTuple):
  """One training batch: what `PearlAgent.train` receives.

  Attributes:
    task: `[T] int64` indices of the tasks, drawn with replacement.
    context: `ContextBatch` with leading dimensions `[T, N]`.
    transitions: `Transition` with leading dimensions `[T, B]`, drawn independently of the context.
  """

  task: Array
  context: ContextBatch
  transitions: Transition


class GaussianFactors(NamedTuple):
  """What the encoder says of each transition: independent Gaussian factors over the latent.

  Attributes:
    mean: `[T, N, Z] float32`.
    variance: `[T, N, Z] float32`, at least 1e-7.
  """

  mean: Array
  variance: Array


class NaturalParameters(NamedTuple):
  """A product of Gaussian factors in the form that adds.

  Attributes:
    precision: `[..., Z] float32`, sum of inverse variances; `[..., Z * Z]`, sum of matrices, for an
      encoder whose factors are not diagonal.
    precision_mean: `[..., Z] float32`, sum of mean / variance, or of what is its like there.
    count: `[...] float32`, the number of factors; 0 means no evidence, hence the prior.
  """

  precision: Array
  precision_mean: Array
  count: Array


class Posterior(NamedTuple):
  """A diagonal Gaussian belief over the latent.

  Attributes:
    mean: `[..., Z] float32`.
    variance: `[..., Z] float32`. Zero in the deterministic-latent variant.
  """

  mean: Array
  variance: Array


class PolicyState(NamedTuple):
  """What the policy carries from step to step; constant within an episode.

  Attributes:
    latent: `[B, Z] float32`, redrawn from `posterior` at the first step of an episode.
    posterior: `Posterior` with leading dimension `[B]`.
  """

  latent: Array
  posterior: Posterior
