"""MAML for reinforcement learning, with a trust region around the adapted policies.

References: Finn et al. 2017, arXiv:1703.03400; Schulman et al. 2015, arXiv:1502.05477.
"""

import gin
import numpy as np
import tensorflow as tf

from pearl_tf.agents import adapting_agent, meta_gradient
from pearl_tf.agents.maml import losses, trust_region
from pearl_tf.data import specs


@gin.configurable(denylist=['domain', 'train_step_counter', 'seed'])
class MAMLAgent(adapting_agent.AdaptingAgent):
  """One natural-gradient step, as long as a bound on the mean KL allows, an iteration."""

  form = meta_gradient.LOG_LIKELIHOOD

  def __init__(
    self,
    domain: specs.DomainSpec,
    *,
    train_step_counter: tf.Variable,
    seed: int,
    max_kl: float = 0.01,
    cg_iterations: int = 10,
    cg_damping: float = 1e-5,
    backtrack: float = 0.8,
    max_tries: int = 15,
    **adapting,
  ):
    """Makes fresh meta-parameters.

    Args:
      domain: sizes of the domain.
      train_step_counter: `int64` variable, incremented once per outer step.
      seed: of the initial parameters.
      max_kl: bound on the mean KL of the adapted policies, in nats.
      cg_iterations: of conjugate gradients, a curvature product each.
      cg_damping: added to the diagonal of the curvature.
      backtrack: factor by which the line search shortens the step.
      max_tries: points that it tries.
      **adapting: of `AdaptingAgent`.

    Raises:
      ValueError: if a number is out of its range.
    """
    super().__init__(domain, train_step_counter=train_step_counter, seed=seed, **adapting)
    if not max_kl > 0 or not cg_damping >= 0 or not 0 < backtrack < 1:
      raise ValueError(
        'MAMLAgent.max_kl must be positive, .cg_damping not negative and .backtrack in (0, 1), '
        f'got {max_kl}, {cg_damping} and {backtrack}'
      )
    if cg_iterations < 1 or max_tries < 1:
      raise ValueError(
        'MAMLAgent.cg_iterations and .max_tries must be positive, got '
        f'{cg_iterations} and {max_tries}'
      )
    self._max_kl = max_kl
    self._cg_iterations, self._cg_damping = cg_iterations, cg_damping
    self._backtrack, self._max_tries = backtrack, max_tries
    self._losses = tf.function(self._sum_losses, reduce_retracing=True)
    self._gradient = tf.function(self._sum_gradient, reduce_retracing=True)
    self._product = tf.function(self._sum_product, reduce_retracing=True)

  def _sum_losses(self, parameters, pre, post):
    values = losses.surrogate_and_kl(self.policy, parameters, pre, post, step_size=self._step_size)
    return [tf.reduce_sum(value) for value in values]

  def _sum_gradient(self, parameters, pre, post):
    with tf.GradientTape() as tape:
      tape.watch(parameters)
      surrogate, _ = self._sum_losses(parameters, pre, post)
    return tape.gradient(surrogate, parameters)

  def _sum_product(self, parameters, vector, pre, post):
    return losses.curvature_product(
      self.policy, parameters, vector, pre, post, step_size=self._step_size
    )

  def train(self) -> dict[str, float]:
    """Takes one outer step; returns scalars for the log."""
    pre, post = self._stages
    # Vectors in float64: a quarter of the last digits is lost in ten iterations of float32.
    start = self.parameters.numpy().astype(np.float64)

    def mean_over_tasks(function, *arguments) -> np.ndarray:
      arguments = [tf.constant(argument, tf.float32) for argument in arguments]
      parts = [np.asarray(function(*arguments, *chunk)) for chunk in self._chunks(pre, post)]
      return np.sum(parts, axis=0, dtype=np.float64) / len(pre.mask)

    def product(vector: np.ndarray) -> np.ndarray:
      return mean_over_tasks(self._product, start, vector) + self._cg_damping * vector

    def evaluate(parameters: np.ndarray) -> tuple[float, float]:
      return tuple(map(float, mean_over_tasks(self._losses, parameters)))

    gradient = mean_over_tasks(self._gradient, start)
    direction = trust_region.conjugate_gradient(product, gradient, iterations=self._cg_iterations)
    step = trust_region.line_search(
      evaluate,
      start,
      trust_region.full_step(product, direction, max_kl=self._max_kl),
      max_kl=self._max_kl,
      backtrack=self._backtrack,
      max_tries=self._max_tries,
    )
    self.parameters.assign(step.parameters.astype(np.float32))
    self.train_step_counter.assign_add(1)
    log_std = self.policy(self.parameters, pre.observation[0, :1]).log_std
    return {
      'loss/surrogate': step.loss,
      'kl/outer': step.kl,
      'policy/log_std': float(tf.reduce_mean(log_std)),
      'trust_region/tries': float(step.tries),
      'trust_region/accepted': float(step.accepted),
    }
