"""Gradient steps in compiled batches, each on a meta-batch drawn inside the compiled call.

TF-Agents' own `Learner` keeps checkpoints on its own clock, apart from replay and progress; a run
that must resume exactly needs all of them in one (`pearl_tf.experiment.checkpoints`).
"""

from typing import Protocol

import numpy as np
import tensorflow as tf
from tf_agents.agents import tf_agent

from pearl_tf.agents import replicas
from pearl_tf.data import types


class Sampler(Protocol):
  """Source of meta-batches, callable inside a `tf.function`."""

  def check_ready(self) -> None:
    """Raises RuntimeError if a task has nothing to sample."""

  def sample(self, seed: tf.Tensor) -> types.MetaBatch:
    """Returns a batch; `seed` is `[2] int32`."""


class DivergenceError(RuntimeError):
  """A training quantity stopped being a finite number."""


class Learner:
  """Trains an agent on batches of a sampler; what is drawn depends on seed and step counter."""

  def __init__(self, agent: tf_agent.TFAgent, sampler: Sampler, *, seed: np.random.SeedSequence):
    """Prepares training; nothing is traced before the first call of `run`.

    Args:
      agent: the agent; its `train_step_counter` names the batch. Made within the scope of a
        `tf.distribute` strategy, it trains on a share of the batch in every replica.
      sampler: where batches come from.
      seed: seeds the draws.
    """
    self._agent = agent
    self.sampler = sampler
    self._strategy = replicas.strategy_of(agent)
    self._seed = tf.constant(seed.generate_state(2).astype(np.int32))
    self._train_step = tf.function(self._sample_and_train)
    self._train_steps = tf.function(self._sum_over_steps)

  def _sample_and_train(self) -> dict[str, tf.Tensor]:
    step = tf.cast(self._agent.train_step_counter, tf.int32)
    seed = tf.random.experimental.stateless_fold_in(self._seed, step, alg='philox')
    scalars = self._strategy.run(self._train_on_share, args=(self.sampler.sample(seed),))
    # The same in every replica.
    return tf.nest.map_structure(lambda x: self._strategy.experimental_local_results(x)[0], scalars)

  def _train_on_share(self, batch: types.MetaBatch) -> dict[str, tf.Tensor]:
    return self._agent.train(replicas.share(batch)).extra

  def _sum_over_steps(self, num_steps: tf.Tensor) -> dict[str, tf.Tensor]:
    step = self._train_step.get_concrete_function()
    totals = {name: tf.zeros([]) for name in step.structured_outputs}
    for _ in tf.range(num_steps):
      scalars = step()
      totals = {name: totals[name] + scalars[name] for name in totals}
    return totals

  def run(self, num_steps: int) -> dict[str, float]:
    """Takes `num_steps` training steps.

    Args:
      num_steps: at least 1.

    Returns:
      The sum over the steps of every scalar the agent reports.

    Raises:
      DivergenceError: if one of them is not finite.
      RuntimeError: if a task has no data to sample.
    """
    self.sampler.check_ready()
    totals = self._train_steps(tf.constant(num_steps, tf.int32))
    totals = {name: float(total) for name, total in totals.items()}
    broken = sorted(name for name, total in totals.items() if not np.isfinite(total))
    if broken:
      step = int(self._agent.train_step_counter.numpy())
      raise DivergenceError(
        f'training diverged within gradient steps {step - num_steps} to {step}: '
        f'{", ".join(broken)} not finite. The last '
        'checkpoint is from before and was kept. Lower the learning rates or reward_scale, or '
        'check the rewards of the task family.'
      )
    return totals
