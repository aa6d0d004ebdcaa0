"""Makes meta-batches up, for tests of what learns from them."""

import numpy as np

from pearl_tf.data import specs, types


def random_meta_batch(
  domain: specs.DomainSpec,
  *,
  num_tasks: int,
  num_context: int,
  batch_size: int,
  seed: int = 0,
  num_padding: int = 0,
  padding: float = 0.0,
) -> types.MetaBatch:
  """Returns a meta-batch of noise, about one transition in four terminal.

  Args:
    domain: sizes of the domain.
    num_tasks: `T`.
    num_context: `N`, padding included.
    batch_size: `B`.
    seed: seed of the noise.
    num_padding: how many context transitions of every second task are masked out.
    padding: what stands there; NaN shows whether anything reads it.
  """
  generator = np.random.default_rng(seed)

  def normal(*shape: int) -> np.ndarray:
    return generator.normal(size=shape).astype(np.float32)

  def action(*shape: int) -> np.ndarray:
    return generator.uniform(-1, 1, size=shape).astype(np.float32)

  context = types.ContextBatch(
    observation=normal(num_tasks, num_context, domain.observation_size),
    action=action(num_tasks, num_context, domain.action_size),
    reward=normal(num_tasks, num_context),
    next_observation=normal(num_tasks, num_context, domain.observation_size),
    mask=np.ones([num_tasks, num_context], np.float32),
  )
  if num_padding:
    for column in context:
      column[::2, -num_padding:] = padding
    context.mask[::2, -num_padding:] = 0.0
  transitions = types.Transition(
    observation=normal(num_tasks, batch_size, domain.observation_size),
    action=action(num_tasks, batch_size, domain.action_size),
    reward=normal(num_tasks, batch_size),
    discount=(generator.uniform(size=[num_tasks, batch_size]) > 0.25).astype(np.float32),
    next_observation=normal(num_tasks, batch_size, domain.observation_size),
  )
  return types.MetaBatch(np.arange(num_tasks, dtype=np.int64), context, transitions)
