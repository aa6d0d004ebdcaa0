"""What ProMP and MAML have in common: parameters from which every task adapts by a gradient step.

This module owns the meta-parameters, adaptation, and how a round of on-policy episodes becomes two
stages. The outer step is the subclass's.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence

import gin
import numpy as np
import tensorflow as tf

from pearl_tf.agents import meta_gradient
from pearl_tf.data import specs, types
from pearl_tf.networks import flat_gaussian

PRE, POST = 'pre', 'post'


@gin.configurable(denylist=['domain', 'train_step_counter', 'seed'])
class AdaptingAgent(tf.Module):
  """Meta-parameters and one inner step of policy gradient; a method adds `train`, its outer step.

  Attributes:
    train_step_counter: gradient steps taken.
    policy: the function that parameters are of.
    parameters: `[P]` variable, the meta-parameters.
  """

  form: str

  def __init__(
    self,
    domain: specs.DomainSpec,
    *,
    train_step_counter: tf.Variable,
    seed: int,
    policy_class: Callable[..., flat_gaussian.FlatGaussian] = flat_gaussian.FlatGaussian,
    step_size: float = 0.1,
    gamma: float = 0.99,
    gae_lambda: float = 1.0,
    tasks_per_chunk: int = 10,
  ):
    """Makes fresh meta-parameters.

    Args:
      domain: sizes of the domain.
      train_step_counter: `int64` variable, incremented once per outer step.
      seed: of the initial parameters.
      policy_class: lays out the policy.
      step_size: of the inner step; 0 adapts nothing.
      gamma: discount factor.
      gae_lambda: of the advantages.
      tasks_per_chunk: tasks that one product is computed for; bounds the memory, and changes
        results by rounding only.

    Raises:
      ValueError: if a number is out of its range.
    """
    super().__init__()
    name = type(self).__name__
    for argument, value, high in (
      ('step_size', step_size, math.inf),
      ('gamma', gamma, 1.0),
      ('gae_lambda', gae_lambda, 1.0),
    ):
      if not 0 <= value <= high:
        raise ValueError(f'{name}.{argument} must be in [0, {high}], got {value}')
    if tasks_per_chunk < 1:
      raise ValueError(f'{name}.tasks_per_chunk must be positive, got {tasks_per_chunk}')
    self.train_step_counter = train_step_counter
    self.policy = policy_class(domain.observation_size, domain.action_size)
    self.parameters = tf.Variable(self.policy.initial_parameters(seed), name='parameters')
    self._step_size = step_size
    self._gamma, self._gae_lambda = gamma, gae_lambda
    self._tasks_per_chunk = tasks_per_chunk
    self._adapted = tf.function(self._adapt_chunk, reduce_retracing=True)

  def _adapt_chunk(self, parameters: tf.Tensor, stage: meta_gradient.Stage) -> tf.Tensor:
    return meta_gradient.adapted(
      self.policy, parameters, stage, step_size=self._step_size, form=self.form
    )

  def adapt(
    self, parameters: np.ndarray, episodes_by_task: Sequence[Sequence[types.Episode]]
  ) -> np.ndarray:
    """Takes one inner step a task.

    Args:
      parameters: `[T, P] float32`, which the episodes were sampled with.
      episodes_by_task: whole episodes, at least one a task.

    Returns:
      `[T, P] float32`; a row depends on its own task alone.
    """
    stage = self._make_stage(parameters, episodes_by_task)
    return self._adapted(tf.constant(parameters), stage).numpy()

  def _make_stage(self, parameters, episodes_by_task) -> meta_gradient.Stage:
    return meta_gradient.make_stage(
      self.policy,
      parameters,
      episodes_by_task,
      gamma=self._gamma,
      gae_lambda=self._gae_lambda,
    )

  def take(self, episodes: Mapping[str, Sequence[Sequence[types.Episode]]]) -> None:
    """Takes the data that `train` learns from.

    Args:
      episodes: those before adaptation, `PRE`, and after it, `POST`; of each task in turn.
    """
    meta = tf.tile(self.parameters[tf.newaxis], [len(episodes[PRE]), 1])
    pre = self._make_stage(meta.numpy(), episodes[PRE])
    adapted = self._adapted(meta, pre).numpy()
    self._stages = (pre, self._make_stage(adapted, episodes[POST]))

  def _chunks(
    self, pre: meta_gradient.Stage, post: meta_gradient.Stage
  ) -> Iterator[tuple[meta_gradient.Stage, meta_gradient.Stage]]:
    size = self._tasks_per_chunk
    for start in range(0, len(pre.mask), size):
      part = slice(start, start + size)
      yield tf.nest.map_structure(lambda values, part=part: values[part], (pre, post))
