import asyncio
import threading
import time

import grpc
import numpy as np
import tensorflow as tf
from absl.testing import absltest
from tensorflow.core.protobuf import meta_graph_pb2

from pearl_tf.testing import test_case
from serving.server import batcher, errors, signature

WAIT_SECONDS = 20


def make_signature():
  proto = meta_graph_pb2.SignatureDef()
  for entries, alias in ((proto.inputs, 'x'), (proto.outputs, 'y')):
    entries[alias].name, entries[alias].dtype = f'{alias}:0', tf.float32.as_datatype_enum
    for size in (-1, 2):
      entries[alias].tensor_shape.dim.add(size=size)
  return signature.Signature(proto, 'double')


class FakeModel:
  """Doubles x in NumPy; fails for a negative x, and waits for `gate` while it is closed."""

  def __init__(self):
    self.double = make_signature()
    self.batches = []
    self.threads = []
    self.num_leases = 0
    self.gate = threading.Event()
    self.gate.set()
    self.entered = threading.Event()

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
    self.num_leases += 1

  def __exit__(self, *exc_info):
    self.num_leases -= 1


def row(*values):
  return {'x': np.array([[value, 0.0] for value in values], np.float32)}


def queued(tested):
  calls = [call for group in tested._groups.values() for call in group.calls]
  return sum(not call.future.done() for call in calls)


async def until(condition):
  deadline = time.monotonic() + WAIT_SECONDS
  while not condition():
    if time.monotonic() > deadline:
      raise TimeoutError('what the test waits for did not happen')
    await asyncio.sleep(0.001)


class BatcherTest(test_case.TestCase):
  def with_batcher(self, scenario, on_batch=lambda rows: None):
    """Runs `await scenario(batcher, model)` and closes the batcher."""
    model = FakeModel()

    async def run():
      tested = batcher.Batcher(on_batch)
      try:
        return await asyncio.wait_for(scenario(tested, model), WAIT_SECONDS)
      finally:
        model.gate.set()
        await tested.close()
        self.assertEqual(model.num_leases, 0)
        self.assertEmpty(tested._groups)

    return asyncio.run(run())

  def setUp(self):
    super().setUp()
    # The loop of a test must not wait for its gate.
    self.enter_context(absltest.mock.patch.object(batcher, 'INLINE_SECONDS', 0.0))

  async def busy(self, tested, model):
    """Keeps the model busy until the gate is opened; returns the call that does."""
    model.gate.clear()
    model.entered.clear()
    task = asyncio.create_task(tested.run(model, model.double, row(0), ('y',)))
    await until(model.entered.is_set)
    model.batches.clear()
    return task

  def test_a_lone_call_runs_at_once(self):
    async def scenario(tested, model):
      return await tested.run(model, model.double, row(3, 4), ('y',))

    outputs = self.with_batcher(scenario)
    self.assertAllEqual(outputs['y'], [[6, 0], [8, 0]])

  def test_calls_that_come_meanwhile_share_a_batch(self):
    async def scenario(tested, model):
      first = await self.busy(tested, model)
      others = [
        asyncio.create_task(tested.run(model, model.double, row(i), ('y',))) for i in range(1, 6)
      ]
      await until(lambda: queued(tested) == 5)
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
        asyncio.create_task(tested.run(model, model.double, row(*[i] * size), ('y',)))
        for i, size in enumerate((1, 2, 2, 1), start=1)
      ]
      await until(lambda: queued(tested) == 4)
      model.gate.set()
      await asyncio.gather(first, *others)
      return model.batches

    with absltest.mock.patch.object(batcher, 'MAX_ROWS', 4):
      self.assertEqual(self.with_batcher(scenario), [[1, 2, 2], [3, 3, 4]])

  def test_each_gets_the_outputs_it_wants(self):
    async def scenario(tested, model):
      first = await self.busy(tested, model)
      others = [
        asyncio.create_task(tested.run(model, model.double, row(1), names))
        for names in (('y',), (), ('y',))
      ]
      await until(lambda: queued(tested) == 3)
      model.gate.set()
      await first
      return model.batches, [list(await other) for other in others]

    self.assertEqual(self.with_batcher(scenario), ([[1, 1, 1]], [['y'], [], ['y']]))

  def test_a_failing_call_spares_its_neighbours(self):
    async def scenario(tested, model):
      first = await self.busy(tested, model)
      others = [
        asyncio.create_task(tested.run(model, model.double, row(i), ('y',))) for i in (1, -1, 2)
      ]
      await until(lambda: queued(tested) == 3)
      model.gate.set()
      await first
      self.assertAllEqual((await others[0])['y'], [[2, 0]])
      self.assertAllEqual((await others[2])['y'], [[4, 0]])
      with self.assertRaisesRegex(errors.ServingError, 'negative') as caught:
        await others[1]
      self.assertIs(caught.exception.code, grpc.StatusCode.INVALID_ARGUMENT)
      return model.batches

    self.assertEqual(self.with_batcher(scenario), [[1, -1, 2], [1], [-1], [2]])

  def test_too_late_while_it_waits(self):
    async def scenario(tested, model):
      first = await self.busy(tested, model)
      deadline = time.monotonic() + 0.05
      late = asyncio.create_task(tested.run(model, model.double, row(1), ('y',), deadline=deadline))
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
      task = asyncio.create_task(tested.run(model, model.double, row(1), ('y',)))
      await until(lambda: queued(tested) == 1)
      task.cancel()
      await until(lambda: queued(tested) == 0)
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
      self.assertEqual(model.num_leases, 1)
      model.gate.set()
      await until(lambda: model.num_leases == 0)

    self.with_batcher(scenario)

  def test_quick_lone_calls_run_in_the_loop(self):
    async def scenario(tested, model):
      for _ in range(3):
        await tested.run(model, model.double, row(1), ('y',))
      return [thread is threading.current_thread() for thread in model.threads]

    # How long it takes is not known before the first.
    with absltest.mock.patch.object(batcher, 'INLINE_SECONDS', 5.0):
      self.assertEqual(self.with_batcher(scenario), [False, True, True])

  def test_reports_batches(self):
    seen = []

    async def scenario(tested, model):
      await tested.run(model, model.double, row(1, 2), ('y',))

    self.with_batcher(scenario, seen.append)
    self.assertEqual(seen, [2])

  def test_close_refuses_what_waits_and_finishes_what_runs(self):
    async def scenario(tested, model):
      first = await self.busy(tested, model)
      waiting = asyncio.create_task(tested.run(model, model.double, row(1), ('y',)))
      await until(lambda: queued(tested) == 1)
      closing = asyncio.create_task(tested.close())
      with self.assertRaises(errors.ServingError) as caught:
        await waiting
      self.assertFalse(closing.done())
      model.gate.set()
      self.assertAllEqual((await first)['y'], [[0, 0]])
      await closing
      with self.assertRaisesRegex(errors.ServingError, 'UNAVAILABLE'):
        await tested.run(model, model.double, row(1), ('y',))
      return caught.exception.code

    self.assertIs(self.with_batcher(scenario), grpc.StatusCode.UNAVAILABLE)


class PatienceTest(test_case.TestCase):
  def rounds(self, tested):
    """Returns how many rounds it waits if no call comes."""
    tested.arrived()
    count = 0
    while tested.should_wait():
      count += 1
    return count

  def test_a_lone_client_never_waits(self):
    tested = batcher.Patience()
    for _ in range(5):
      self.assertEqual(self.rounds(tested), 0)
      tested.ran(1)

  def test_waits_where_calls_meet(self):
    tested = batcher.Patience()
    tested.ran(2)
    self.assertEqual(self.rounds(tested), 2)
    for _ in range(20):
      tested.ran(5)
    self.assertEqual(self.rounds(tested), 8)

  def test_forgets_when_they_no_longer_do(self):
    tested = batcher.Patience()
    tested.ran(2)
    tested.ran(1)
    tested.ran(1)
    self.assertEqual(self.rounds(tested), 0)

  def test_new_calls_prolong_the_wait(self):
    tested = batcher.Patience()
    tested.ran(2)
    for _ in range(10):
      tested.arrived()
      self.assertTrue(tested.should_wait())

  def test_but_not_for_ever(self):
    tested = batcher.Patience()
    tested.ran(2)
    for _ in range(200):
      tested.arrived()
      if not tested.should_wait():
        return
    self.fail('it waits for ever')


if __name__ == '__main__':
  absltest.main()
