"""Times the training step, and the matrix products it cannot do without.

The floor is the time the step would take if all its products ran at the rate this machine reaches
on that of a hidden layer, and everything else took no time.
"""

from collections.abc import Callable, Sequence
from typing import Any

import tensorflow as tf

from pearl_tf.agents import learner
from pearl_tf.agents.pearl import replay_training
from pearl_tf.data import seeds, types
from pearl_tf.experiment import builder as builder_lib
from pearl_tf.experiment.benchmark import timing

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


def floor(
  builder: builder_lib.Builder, process: replay_training.ReplayTraining, *, step_ms: float, **rounds
) -> dict[str, Any]:
  """Counts the step's matrix products, times the largest of a hidden layer and compares.

  Args:
    builder: the experiment.
    process: filled.
    step_ms: what a training step took.
    **rounds: for `timing.take_turns`.

  Returns:
    The count, the median rate, the floor, and the share of the floor reached, 1 being the floor
    itself.
  """
  training = builder.method.training
  batch = tf.function(process.learner.sampler.sample)(tf.constant([0, 0], tf.int32))
  step = tf.function(lambda: builder.agent.train(batch))
  operations = matmul_operations(step.get_concrete_function())
  rows = training.meta_batch_size * training.batch_size
  kernels = [v.shape for v in builder.agent.trainable_variables if v.shape.rank == 2]
  inputs, outputs = max(kernels, key=lambda shape: shape.num_elements())
  turns = timing.take_turns({'product': product(rows, inputs, outputs)}, **rounds)
  rate = turns['product'].median_rate()
  floor_ms = 1000 * operations / rate
  return {
    'gflop': operations / 1e9,
    'matmul_shape': [rows, inputs, outputs],
    'gflop_per_second': rate / 1e9,
    'floor_ms': floor_ms,
    'share_of_floor': floor_ms / step_ms,
    'repeats': turns['product'].number,
  }


def matmul_operations(function: tf.types.experimental.ConcreteFunction) -> int:
  """Counts multiplications and additions of the matrix products that a graph would execute.

  Args:
    function: of known shapes; functions that it calls are not looked into.
  """
  waiting = [tensor.op for tensor in function.graph.outputs] + list(function.graph.control_outputs)
  seen, total = set(), 0
  while waiting:
    operation = waiting.pop()
    if operation in seen:
      continue
    seen.add(operation)
    waiting += [tensor.op for tensor in operation.inputs] + list(operation.control_inputs)
    if 'MatMul' in operation.type:
      left = operation.inputs[0].shape.as_list()
      transposed = operation.get_attr('adj_x' if 'Batch' in operation.type else 'transpose_a')
      result = operation.outputs[0].shape.num_elements()
      total += 2 * result * (left[-2] if transposed else left[-1])
  return total


def product(rows: int, inputs: int, outputs: int) -> Callable[[], int]:
  """Returns an activity: some products `[rows, inputs] x [inputs, outputs]` one after the other.

  Each is on operands of its own, so that no cache holds them all. The activity returns its number
  of operations.
  """
  generator = tf.random.Generator.from_seed(0)
  left, right = (
    [generator.normal(shape) for _ in range(_PRODUCTS_PER_CALL)]
    for shape in ([rows, inputs], [inputs, outputs])
  )

  @tf.function
  def multiply_all(left: Sequence[tf.Tensor], right: Sequence[tf.Tensor]) -> list[tf.Tensor]:
    results = []
    for a, b in zip(left, right, strict=True):
      with tf.control_dependencies(results[-1:]):
        results.append(tf.matmul(a, b))
    return results

  def run() -> int:
    # Reading one number waits for the device, wherever it is.
    multiply_all(left, right)[-1][0, 0].numpy()
    return _PRODUCTS_PER_CALL * 2 * rows * inputs * outputs

  return run
