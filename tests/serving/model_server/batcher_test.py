import asyncio
import threading
import time

import grpc
import numpy as np
import tensorflow as tf
from absl.testing import absltest, parameterized
from tensorflow.core.protobuf import meta_graph_pb2

from pearl_tf.testing import test_case
from serving import errors
from serving.model_server import batcher, batching_config, signatures

WAIT_SECONDS = 20


def make_signature():
  proto = meta_graph_pb2.SignatureDef()
  for entries, alias in ((proto.inputs, 'x'), (proto.outputs, 'y')):
    entries[alias].name, entries[alias].dtype = f'{alias}:0', tf.float32.as_datatype_enum
    for size in (-1, 2):
      entries[alias].tensor_shape.dim.add(size=size)
  return signatures.Signature(proto, 'double')


class FakeModel:
  """Doubles x in NumPy; fails for a negative x, and waits for `gate` while it is closed."""

  def __init__(self):
    self.double = make_signature()
    self.batches = []
    self.threads = []
    self.leases = 0
    self.gate = threading.Event()
    self.gate.set()
    self.entered = threading.Event()

  def signature(self, name=''):
    del name
    return self.double

  def run(self, signature_name, inputs, output_names):
    del signature_name, output_names
    x = inputs['x']
    self.batches.append(x[:, 0].tolist())
    self.threads.append(threading.current_thread())
    self.entered.set()
    if not self.gate.wait(WAIT_SECONDS):
      raise TimeoutError('the test did not open the gate')
    if (x < 0).any():
      raise errors.invalid_argument('negative')
    return {'y': 2 * x}

  def __enter__(self):
    self.leases += 1

  def __exit__(self, *exc_info):
    self.leases -= 1


def row(*values):
  return {'x': np.array([[value, 0.0] for value in values], np.float32)}


async def until(condition):
  deadline = time.monotonic() + WAIT_SECONDS
  while not condition():
    if time.monotonic() > deadline:
      raise TimeoutError('what the test waits for did not happen')
    await asyncio.sleep(0.001)


class BatcherTest(test_case.TestCase):
  def with_batcher(self, scenario, on_batch=None, **config):
    """Runs `await scenario(batcher, model)` and closes the batcher."""
    config.setdefault('inline_seconds', 0.0)
    model = FakeModel()

    async def run():
      tested = batcher.Batcher(batching_config.BatchingConfig(**config), on_batch=on_batch)
      try:
        return await asyncio.wait_for(scenario(tested, model), WAIT_SECONDS)
      finally:
        model.gate.set()
        await tested.close()
        self.assertEqual(model.leases, 0)
        self.assertEqual(tested.queued, 0)

    return asyncio.run(run())

  async def busy(self, tested, model):
    """Keeps the model busy until the gate is opened; returns the call that does."""
    model.gate.clear()
    model.entered.clear()
    task = asyncio.create_task(tested.run(model, 'double', row(0), ('y',)))
    await until(model.entered.is_set)
    model.batches.clear()
    return task

  def test_a_lone_call_runs_at_once(self):
    async def scenario(tested, model):
      return await tested.run(model, 'double', row(3, 4), ('y',))

    outputs = self.with_batcher(scenario)
    self.assertAllEqual(outputs['y'], [[6, 0], [8, 0]])

  def test_calls_that_come_meanwhile_share_a_batch(self):
    async def scenario(tested, model):
      first = await self.busy(tested, model)
      others = [
        asyncio.create_task(tested.run(model, 'double', row(i), ('y',))) for i in range(1, 6)
      ]
      await until(lambda: tested.queued == 5)
      model.gate.set()
      await first
      for i, other in enumerate(others, start=1):
        self.assertAllEqual((await other)['y'], [[2 * i, 0]])
      return model.batches

    self.assertEqual(self.with_batcher(scenario), [[1, 2, 3, 4, 5]])

  def test_batches_are_limited_and_in_order(self):
    async def scenario(tested, model):
      first = await self.busy(tested, model)
      others = [
        asyncio.create_task(tested.run(model, 'double', row(*[i] * size), ('y',)))
        for i, size in enumerate((1, 2, 2, 1), start=1)
      ]
      await until(lambda: tested.queued == 4)
      model.gate.set()
      await asyncio.gather(first, *others)
      return model.batches

    self.assertEqual(self.with_batcher(scenario, max_batch_size=4), [[1, 2, 2], [3, 3, 4]])

  def test_calls_of_other_outputs_run_apart(self):
    async def scenario(tested, model):
      first = await self.busy(tested, model)
      others = [
        asyncio.create_task(tested.run(model, 'double', row(1), names))
        for names in (('y',), (), ('y',))
      ]
      await until(lambda: tested.queued == 3)
      model.gate.set()
      await asyncio.gather(first, *others, return_exceptions=True)
      return model.batches

    self.assertCountEqual(self.with_batcher(scenario)[:2], [[1, 1], [1]])

  def test_a_failing_call_spares_its_neighbours(self):
    async def scenario(tested, model):
      first = await self.busy(tested, model)
      others = [
        asyncio.create_task(tested.run(model, 'double', row(i), ('y',))) for i in (1, -1, 2)
      ]
      await until(lambda: tested.queued == 3)
      model.gate.set()
      await first
      self.assertAllEqual((await others[0])['y'], [[2, 0]])
      self.assertAllEqual((await others[2])['y'], [[4, 0]])
      with self.assertRaisesRegex(errors.ServingError, 'negative') as caught:
        await others[1]
      self.assertIs(caught.exception.code, grpc.StatusCode.INVALID_ARGUMENT)
      return model.batches

    self.assertEqual(self.with_batcher(scenario), [[1, -1, 2], [1], [-1], [2]])

  def test_filled_up_to_an_allowed_size(self):
    async def scenario(tested, model):
      outputs = await tested.run(model, 'double', row(1, 2, 3), ('y',))
      return model.batches, outputs['y']

    batches, y = self.with_batcher(scenario, max_batch_size=8, allowed_batch_sizes=(1, 4, 8))
    self.assertEqual(batches, [[1, 2, 3, 3]])
    self.assertAllEqual(y, [[2, 0], [4, 0], [6, 0]])

  def test_without_batching_each_runs_alone(self):
    async def scenario(tested, model):
      first = await self.busy(tested, model)
      others = [asyncio.create_task(tested.run(model, 'double', row(i), ('y',))) for i in (1, 2)]
      await until(lambda: tested.queued == 2)
      model.gate.set()
      await asyncio.gather(first, *others)
      return model.batches

    self.assertEqual(self.with_batcher(scenario, enabled=False), [[1], [2]])

  def test_too_late_before_it_waits(self):
    async def scenario(tested, model):
      with self.assertRaises(errors.ServingError) as caught:
        await tested.run(model, 'double', row(1), ('y',), deadline=time.monotonic() - 1)
      return model.batches, caught.exception.code

    self.assertEqual(self.with_batcher(scenario), ([], grpc.StatusCode.DEADLINE_EXCEEDED))

  def test_too_late_while_it_waits(self):
    async def scenario(tested, model):
      first = await self.busy(tested, model)
      deadline = time.monotonic() + 0.05
      late = asyncio.create_task(tested.run(model, 'double', row(1), ('y',), deadline=deadline))
      await until(lambda: time.monotonic() > deadline)
      model.gate.set()
      await first
      with self.assertRaises(errors.ServingError) as caught:
        await late
      return model.batches, caught.exception.code

    self.assertEqual(self.with_batcher(scenario), ([], grpc.StatusCode.DEADLINE_EXCEEDED))

  def test_cancelling_frees_the_slot(self):
    async def scenario(tested, model):
      first = await self.busy(tested, model)
      task = asyncio.create_task(tested.run(model, 'double', row(1), ('y',)))
      await until(lambda: tested.queued == 1)
      task.cancel()
      await until(lambda: tested.queued == 0)
      model.gate.set()
      await first
      return model.batches

    self.assertEqual(self.with_batcher(scenario), [])

  def test_model_stays_borrowed_while_a_cancelled_call_runs(self):
    async def scenario(tested, model):
      task = await self.busy(tested, model)
      task.cancel()
      with self.assertRaises(asyncio.CancelledError):
        await task
      self.assertEqual(model.leases, 1)
      model.gate.set()
      await until(lambda: model.leases == 0)

    self.with_batcher(scenario)

  @parameterized.parameters({'max_queued_calls': 2}, {'max_queued_bytes': 16})
  def test_full_queue(self, **limits):
    async def scenario(tested, model):
      first = await self.busy(tested, model)
      others = [asyncio.create_task(tested.run(model, 'double', row(1), ('y',))) for _ in range(2)]
      await until(lambda: tested.queued == 2)
      with self.assertRaisesRegex(errors.ServingError, 'queue .* is full; .* 2 calls') as caught:
        await tested.run(model, 'double', row(1), ('y',))
      model.gate.set()
      await asyncio.gather(first, *others)
      await tested.run(model, 'double', row(1), ('y',))
      return caught.exception.code

    self.assertIs(self.with_batcher(scenario, **limits), grpc.StatusCode.RESOURCE_EXHAUSTED)

  def test_too_many_rows(self):
    async def scenario(tested, model):
      await tested.run(model, 'double', row(*range(5)), ('y',))
      with self.assertRaises(errors.ServingError) as caught:
        await tested.run(model, 'double', row(*range(6)), ('y',))
      return caught.exception.message

    self.assertEqual(
      self.with_batcher(scenario, max_call_size=5, max_batch_size=3),
      'Task size 6 is larger than maximum input batch size 5',
    )

  def test_short_batches_run_in_the_loop(self):
    async def scenario(tested, model):
      for _ in range(3):
        await tested.run(model, 'double', row(1), ('y',))
      return [thread is threading.current_thread() for thread in model.threads]

    # How long it takes is not known before the first.
    self.assertEqual(self.with_batcher(scenario, inline_seconds=5.0), [False, True, True])

  def test_reports_batches(self):
    seen = []

    async def scenario(tested, model):
      await tested.run(model, 'double', row(1, 2), ('y',))

    self.with_batcher(scenario, on_batch=lambda *batch: seen.append(batch))
    ((rows, calls, seconds),) = seen
    self.assertEqual((rows, calls), (2, 1))
    self.assertGreater(seconds, 0)

  def test_close_refuses_what_waits_and_finishes_what_runs(self):
    async def scenario(tested, model):
      first = await self.busy(tested, model)
      waiting = asyncio.create_task(tested.run(model, 'double', row(1), ('y',)))
      await until(lambda: tested.queued == 1)
      closing = asyncio.create_task(tested.close())
      with self.assertRaises(errors.ServingError) as caught:
        await waiting
      self.assertFalse(closing.done())
      model.gate.set()
      self.assertAllEqual((await first)['y'], [[0, 0]])
      await closing
      with self.assertRaisesRegex(errors.ServingError, 'UNAVAILABLE'):
        await tested.run(model, 'double', row(1), ('y',))
      return caught.exception.code

    self.assertIs(self.with_batcher(scenario), grpc.StatusCode.UNAVAILABLE)


if __name__ == '__main__':
  absltest.main()
