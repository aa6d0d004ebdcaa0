"""One training step on several devices: every replica takes its share of the tasks of a batch.

Under the scope of a `tf.distribute` strategy, optimizers add up the gradients of the replicas, and
what the step of a single device is a mean over has to become a share of that mean. This module owns
that arithmetic. The noise of a step is that of the whole batch wherever it is computed, so that
losses do not depend on the number of replicas. With one replica every function is the identity.
"""

from collections.abc import Callable
from typing import TypeVar

import tensorflow as tf
from tf_agents.agents import tf_agent

Nest = TypeVar('Nest')


def strategy_of(agent: tf_agent.TFAgent) -> tf.distribute.Strategy:
  """Returns the strategy in whose scope an agent was made; that of one replica if in none."""
  default = tf.distribute.get_strategy()  # Variables of one device know of no strategy.
  return getattr(agent.train_step_counter, 'distribute_strategy', default)


def count() -> int:
  """Returns the number of replicas of the strategy in whose scope this is called."""
  return tf.distribute.get_strategy().num_replicas_in_sync


def share(batch: Nest) -> Nest:
  """Returns this replica's tasks of tensors `[T, ...]`; `T` must be a multiple of `count()`."""
  if count() == 1:
    return batch
  index = tf.distribute.get_replica_context().replica_id_in_sync_group

  def part(tensor: tf.Tensor) -> tf.Tensor:
    size = tensor.shape[0] // count()
    return tensor[index * size : (index + 1) * size]

  return tf.nest.map_structure(part, batch)


def draw(sample: Callable[[Nest], Nest], parameters: Nest) -> Nest:
  """Draws this replica's part of the noise of the whole batch.

  Args:
    sample: maps parameters of distributions `[T, ...]` to draws `[T, ...]`, by a seed of its own.
    parameters: `[T / count(), ...]`, of this replica's tasks.

  Returns:
    The draws `[T / count(), ...]`, differentiable as far as `sample` is.
  """
  if count() == 1:
    return sample(parameters)
  # The parameters stand in for those of the other replicas, whose draws are dropped.
  of_all = tf.nest.map_structure(lambda x: tf.concat([x] * count(), axis=0), parameters)
  return share(sample(of_all))


def share_of_mean(loss: tf.Tensor) -> tf.Tensor:
  """Returns what this replica's mean over its tasks adds to the mean over all tasks."""
  return loss if count() == 1 else loss / count()


def total(value: tf.Tensor) -> tf.Tensor:
  """Returns the sum over the replicas as a number whose `mean` is that sum."""
  return value if count() == 1 else value * count()


def mean(values: Nest) -> Nest:
  """Returns the means of scalars over the replicas."""
  if count() == 1:
    return values
  context = tf.distribute.get_replica_context()
  return context.all_reduce(tf.distribute.ReduceOp.MEAN, values)


def std(values: tf.Tensor) -> tf.Tensor:
  """Returns the standard deviation over the values of all replicas, a scalar."""
  if count() == 1:
    return tf.math.reduce_std(values)
  return tf.sqrt(mean(tf.reduce_mean((values - mean(tf.reduce_mean(values))) ** 2)))


def together(update: Callable[[], tf.Operation]) -> None:
  """Runs what changes variables without an optimizer once for all replicas."""
  tf.distribute.get_replica_context().merge_call(lambda strategy: update())
