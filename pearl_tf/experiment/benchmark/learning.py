"""Times the training step, and the matrix products it cannot do without.

The floor is the time the step would take if all its products (`flops`) ran at the rate this machine
reaches on the hidden layers' products, and everything else took no time.
"""

import itertools
from collections.abc import Callable, Sequence
from typing import Any

import tensorflow as tf

from pearl_tf.agents import learner
from pearl_tf.agents.pearl import replay_training
from pearl_tf.data import seeds, types
from pearl_tf.experiment import builder as builder_lib
from pearl_tf.experiment import config
from pearl_tf.experiment.benchmark import flops, timing

_PRODUCTS_PER_CALL = 8


class FixedBatch:
  """A sampler whose batches are all the same one: what a training step costs without a replay."""

  def __init__(self, batch: types.MetaBatch):
    """Keeps the batch, a nest of eager tensors."""
    self._batch = batch

  def check_ready(self) -> None:
    """Does nothing: there always is a batch."""

  def sample(self, seed: tf.Tensor) -> types.MetaBatch:
    """Returns the batch, whatever the seed."""
    del seed
    return self._batch


def gradient_step(
  builder: builder_lib.Builder, process: replay_training.ReplayTraining, **rounds
) -> dict[str, Any]:
  """Times the learner on the configured sampler and on a fixed batch, in turns.

  Args:
    builder: the experiment; its agent is trained.
    process: filled.
    **rounds: for `timing.take_turns`.

  Returns:
    Milliseconds per training step, each turn being one compiled call of `steps_per_call`.
  """
  steps = builder.method.training.steps_per_call
  batch = tf.function(process.learner.sampler.sample)(tf.constant([0, 0], tf.int32))
  on_fixed_batch = learner.Learner(
    builder.agent, FixedBatch(batch), seed=seeds.sequence(builder.seed, seeds.Stream.REPLAY)
  )

  def training(trained: learner.Learner) -> Callable[[], int]:
    def train() -> int:
      trained.run(steps)
      return steps

    return train

  turns = timing.take_turns(
    {'sampled': training(process.learner), 'fixed': training(on_fixed_batch)}, **rounds
  )
  sampled, fixed = turns['sampled'], turns['fixed']
  return {
    'ms': 1000 / sampled.median_rate(),
    'ms_min': 1000 / sampled.best_rate(),
    'fixed_batch_ms': 1000 / fixed.median_rate(),
    'fixed_batch_ms_min': 1000 / fixed.best_rate(),
    'sampling_percent': timing.extra_percent(sampled, fixed),
    'steps_per_repeat': steps,
    'repeats': sampled.number,
  }


def floor(builder: builder_lib.Builder, *, step_ms: float, **rounds) -> dict[str, Any]:
  """Counts the step's operations, times the hidden layers' products and compares.

  Args:
    builder: the experiment.
    step_ms: what a training step took.
    **rounds: for `timing.take_turns`.

  Returns:
    The count; the rates in the median and in the fastest turn, by product; the floor, each product
    at its own median rate (and all at the best rate of any); the share of the floor reached, 1
    being the floor itself.

  Raises:
    ConfigError: if the operations of the configured networks cannot be counted.
  """
  training = builder.method.training
  try:
    count = flops.training_step(
      builder.agent,
      meta_batch_size=training.meta_batch_size,
      context_size=training.context_size,
      batch_size=training.batch_size,
    )
    widths = flops.layer_widths(builder.agent.critics[0])
  except (TypeError, ValueError) as error:
    raise config.ConfigError(f'no floor: {error}') from error
  rows = training.meta_batch_size * training.batch_size
  inputs, outputs = max(itertools.pairwise(widths), key=lambda product: product[0] * product[1])
  turns = timing.take_turns(products(rows, inputs, outputs), **rounds)
  floor_seconds = sum(
    number / turns[name].median_rate() for name, number in count._asdict().items()
  )
  best_rate = max(each.best_rate() for each in turns.values())
  return {
    'gflop': count.total / 1e9,
    'gflop_by_product': {name: number / 1e9 for name, number in count._asdict().items()},
    'matmul_shape': [rows, inputs, outputs],
    'gflop_per_second': {name: each.median_rate() / 1e9 for name, each in turns.items()},
    'gflop_per_second_max': {name: each.best_rate() / 1e9 for name, each in turns.items()},
    'gflop_per_second_best': best_rate / 1e9,
    'floor_ms': 1000 * floor_seconds,
    'floor_ms_at_best': 1000 * count.total / best_rate,
    'share_of_floor': 1000 * floor_seconds / step_ms,
    'step_gflop_per_second': count.total / 1e6 / step_ms,
    'repeats': turns['forward'].number,
  }


def products(rows: int, inputs: int, outputs: int) -> dict[str, Callable[[], int]]:
  """Returns the three products of a hidden layer, each an activity that returns its operations.

  They are the products of `networks.layers.Dense` and of their gradients, one after the other
  as in a chain of layers, each on operands of its own so that no cache holds them all.

  Args:
    rows: `n`, inputs that pass through the layer.
    inputs: `i`, its input width.
    outputs: `o`, its output width.

  Returns:
    By the names of `flops.Flops`.
  """
  generator = tf.random.Generator.from_seed(0)

  def operands(*shape: int) -> list[tf.Tensor]:
    return [generator.normal(shape) for _ in range(_PRODUCTS_PER_CALL)]

  kernels, layer_inputs = operands(inputs, outputs), operands(rows, inputs)
  gradients = operands(rows, outputs)

  def activity(
    left: Sequence[tf.Tensor],
    right: Sequence[tf.Tensor],
    multiply: Callable[[tf.Tensor, tf.Tensor], tf.Tensor],
  ) -> Callable[[], int]:
    @tf.function
    def multiply_all(left: Sequence[tf.Tensor], right: Sequence[tf.Tensor]) -> list[tf.Tensor]:
      results = []
      for a, b in zip(left, right, strict=True):
        with tf.control_dependencies(results[-1:]):
          results.append(multiply(a, b))
      return results

    def run() -> int:
      # Reading one number waits for the device, wherever it is.
      multiply_all(left, right)[-1][0, 0].numpy()
      return _PRODUCTS_PER_CALL * 2 * rows * inputs * outputs

    return run

  return {
    'forward': activity(layer_inputs, kernels, lambda x, w: tf.matmul(x, w)),
    'input_gradient': activity(gradients, kernels, lambda g, w: tf.matmul(g, w, transpose_b=True)),
    'kernel_gradient': activity(
      layer_inputs, gradients, lambda x, g: tf.matmul(x, g, transpose_a=True)
    ),
  }
