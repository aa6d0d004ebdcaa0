"""Adaptation by one policy-gradient step, which meta-gradients go through.

This module owns the inner step and what its data are; the outer objectives are those of the methods
(`pearl_tf.agents.promp`, `pearl_tf.agents.maml`).

References: Finn et al. 2017, arXiv:1703.03400 (the step); Rothfuss et al. 2019, arXiv:1810.06784
(its two forms, whose values agree and whose meta-gradients do not).
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from pearl_tf.agents import advantages as advantages_lib
from pearl_tf.data import types
from pearl_tf.networks import flat_gaussian

LOG_LIKELIHOOD = 'log_likelihood'
RATIO = 'ratio'


class Stage(NamedTuple):
  """What was collected on `T` tasks with one setting of each task's parameters.

  Attributes:
    observation: `[T, N, O]`.
    action: `[T, N, A]`, as the policy drew it.
    advantage: `[T, N]`.
    mask: `[T, N]`, 1 for a transition and 0 for padding.
    old: the distributions that the actions were drawn from, constants.
  """

  observation: tf.Tensor
  action: tf.Tensor
  advantage: tf.Tensor
  mask: tf.Tensor
  old: flat_gaussian.Gaussian


def make_stage(
  policy: flat_gaussian.FlatGaussian,
  parameters: np.ndarray,
  episodes_by_task: Sequence[Sequence[types.Episode]],
  *,
  gamma: float,
  gae_lambda: float,
) -> Stage:
  """Returns the stage of some episodes.

  Args:
    policy: drew the actions.
    parameters: `[T, P] float32`, with which it drew those of each task.
    episodes_by_task: whole episodes, at least one a task.
    gamma: discount factor.
    gae_lambda: of the advantages.
  """
  found = advantages_lib.advantages(episodes_by_task, gamma=gamma, gae_lambda=gae_lambda)

  def rows(columns: Sequence[np.ndarray]) -> tf.Tensor:
    return tf.constant(np.swapaxes(advantages_lib.padded(columns), 0, 1), tf.float32)

  observation = rows([np.concatenate([e.observation for e in task]) for task in episodes_by_task])
  return Stage(
    observation=observation,
    action=rows([np.concatenate([e.action for e in task]) for task in episodes_by_task]),
    advantage=rows(found),
    mask=rows([np.ones(len(values)) for values in found]),
    old=policy(tf.constant(parameters), observation),
  )


def task_means(values: tf.Tensor, mask: tf.Tensor) -> tf.Tensor:
  """Returns the mean `[T]` over the transitions of each task, `[T, N]` both."""
  return tf.reduce_sum(values * mask, axis=1) / tf.reduce_sum(mask, axis=1)


def ratio(new: flat_gaussian.Gaussian, stage: Stage) -> tf.Tensor:
  """Returns the density of the actions under `new` over that under what drew them, `[T, N]`."""
  old_log_prob = flat_gaussian.log_prob(stage.old, stage.action)
  return tf.exp(flat_gaussian.log_prob(new, stage.action) - old_log_prob)


def adapted(
  policy: flat_gaussian.FlatGaussian,
  parameters: tf.Tensor,
  stage: Stage,
  *,
  step_size: float,
  form: str,
) -> tf.Tensor:
  """Takes one gradient step a task; gradients go through it.

  Args:
    policy: the function that parameters are of.
    parameters: `[T, P]`, one row a task.
    stage: collected with them, or with parameters that they have moved away from.
    step_size: of the step, for all parameters alike.
    form: what the advantage weighs: `LOG_LIKELIHOOD` (MAML) or `RATIO` (ProMP).

  Returns:
    The parameters `[T, P]` after the step; each row depends on its own task alone.
  """
  with tf.GradientTape() as tape:
    tape.watch(parameters)
    distribution = policy(parameters, stage.observation)
    if form == RATIO:
      weighed = ratio(distribution, stage)
    else:
      weighed = flat_gaussian.log_prob(distribution, stage.action)
    # The sum, not the mean over tasks, which would divide every task's step by their number.
    loss = -tf.reduce_sum(task_means(weighed * stage.advantage, stage.mask))
  return parameters - step_size * tape.gradient(loss, parameters)


def tiled(parameters: tf.Tensor, stage: Stage) -> tf.Tensor:
  """Returns the same parameters `[P]` for every task of a stage, `[T, P]`."""
  return tf.tile(parameters[tf.newaxis], [tf.shape(stage.mask)[0], 1])
