"""ProMP: an inner step of policy gradient, and proximal outer steps through it.

References: Rothfuss et al. 2019, arXiv:1810.06784.
"""

import gin
import numpy as np
import tensorflow as tf

from pearl_tf.agents import adapting_agent, meta_gradient, optimizers
from pearl_tf.agents.promp import losses
from pearl_tf.data import specs


@gin.configurable(denylist=['domain', 'train_step_counter', 'seed'])
class ProMPAgent(adapting_agent.AdaptingAgent):
  """Clipped surrogate after adaptation, with a penalty on the divergence before it, by Adam."""

  form = meta_gradient.RATIO

  def __init__(
    self,
    domain: specs.DomainSpec,
    *,
    train_step_counter: tf.Variable,
    seed: int,
    learning_rate: float = 1e-3,
    clip: float = 0.3,
    kl_weight: float = 5e-4,
    **adapting,
  ):
    """Makes fresh meta-parameters and the optimizer.

    Args:
      domain: sizes of the domain.
      train_step_counter: `int64` variable, incremented once per outer step.
      seed: of the initial parameters.
      learning_rate: of Adam on the meta-parameters.
      clip: how far the ratio of densities may leave 1 to be paid for.
      kl_weight: of the divergence of the meta-policy from the one that collected.
      **adapting: of `AdaptingAgent`.

    Raises:
      ValueError: if a number is out of its range.
    """
    super().__init__(domain, train_step_counter=train_step_counter, seed=seed, **adapting)
    if not clip > 0 or not kl_weight >= 0:
      raise ValueError(
        f'ProMPAgent.clip must be positive and .kl_weight not negative, got {clip} and {kl_weight}'
      )
    self._clip, self._kl_weight = clip, kl_weight
    self._optimizer = optimizers.adam(
      learning_rate, [self.parameters], name='ProMPAgent.learning_rate'
    )
    self._gradient = tf.function(self._sum_gradient, reduce_retracing=True)

  def _sum_gradient(self, pre: meta_gradient.Stage, post: meta_gradient.Stage):
    """Returns the gradient of the loss summed over tasks, and the sums of the scalars."""
    with tf.GradientTape() as tape:
      parameters = tf.identity(self.parameters)
      tape.watch(parameters)
      loss, scalars = losses.promp_loss(
        self.policy,
        parameters,
        pre,
        post,
        step_size=self._step_size,
        clip=self._clip,
        kl_weight=self._kl_weight,
      )
    scalars['loss/outer'] = loss
    sums = {name: tf.reduce_sum(values) for name, values in scalars.items()}
    return tape.gradient(loss, parameters), sums

  def train(self) -> dict[str, float]:
    """Takes one outer step; returns scalars for the log."""
    pre, post = self._stages
    number = len(pre.mask)
    parts = [self._gradient(*chunk) for chunk in self._chunks(pre, post)]
    gradient = tf.add_n([part for part, _ in parts]) / number
    self._optimizer.apply_gradients([(gradient, self.parameters)])
    self.train_step_counter.assign_add(1)
    return {
      name: float(np.sum([float(sums[name]) for _, sums in parts])) / number for name in parts[0][1]
    }
