import asyncio
import pathlib
import shutil

import grpc
import numpy as np
import tensorflow as tf
from absl.testing import absltest
from tensorflow_serving.apis import prediction_log_pb2

from pearl_tf.testing import test_case
from serving.server import errors, models, servable
from tests.serving.support import contract_server

VALUES = {'values': np.ones([1, 1], np.float32)}
START, AVAILABLE, UNLOADING, END = (
  getattr(models.State, name) for name in ('START', 'AVAILABLE', 'UNLOADING', 'END')
)
WAIT_SECONDS = 30


class ModelsTest(test_case.TestCase):
  def setUp(self):
    super().setUp()
    self.base = self.temp_dir() / 'toy'
    self.base.mkdir()
    self.loads = []

  def publish(self, version) -> pathlib.Path:
    """Writes a good version the way a publisher should."""
    return contract_server.copy_version(
      contract_server.originals() / 'tiny', self.base / str(version)
    )

  def publish_broken(self, version):
    """Writes a version whose graph is cut off."""
    staged = self.publish(f'.broken-{version}')
    path = staged / 'saved_model.pb'
    path.write_bytes(path.read_bytes()[:100])
    staged.rename(self.base / str(version))

  def run_models(self, scenario, *, start=True, **kwargs):
    """Runs `await scenario(models)` with a started model that looks only when it is told to."""

    async def run():
      tested = models.Models(
        'toy', self.base, poll_seconds=kwargs.pop('poll_seconds', 3600.0), on_load=self.loads.append
      )
      tested._keep = kwargs.pop('keep', 2)
      try:
        if start:
          await asyncio.wait_for(tested.start(), WAIT_SECONDS)
        await asyncio.wait_for(scenario(tested), WAIT_SECONDS)
      finally:
        await tested.stop()

    asyncio.run(run())

  def states(self, tested):
    return {number: found.state for number, found in tested.statuses('toy')}

  async def until(self, tested, states):
    while self.states(tested) != states:
      await asyncio.sleep(0.005)

  def assert_error(self, code, text, call, *args):
    with self.assertRaisesRegex(errors.ServingError, text) as caught:
      call(*args)
    self.assertIs(caught.exception.code, code)

  def test_the_newest_two_versions(self):
    for version in (2, 9, 10):
      self.publish(version)

    async def scenario(tested):
      self.assertEqual(tested.resolve('toy').version, 10)
      self.assertEqual(tested.resolve('toy', 9).version, 9)
      self.assertTrue(tested.is_ready())
      self.assertEqual([number for number, _ in tested.statuses('toy')], [10, 9])

    self.run_models(scenario)
    self.assertEqual(self.loads, [True, True])

  def test_what_is_not_there(self):
    self.publish(1)

    async def scenario(tested):
      code = grpc.StatusCode.NOT_FOUND
      request = 'Servable not found for request: '
      self.assert_error(code, rf'{request}Latest\(nope\)', tested.resolve, 'nope')
      self.assert_error(code, rf'{request}Specific\(toy, 7\)', tested.resolve, 'toy', 7)
      self.assert_error(code, 'any versions of model nope', tested.statuses, 'nope')
      self.assert_error(code, 'find version 9 of model toy', tested.statuses, 'toy', 9)

    self.run_models(scenario)

  def test_start_fails_if_nothing_can_be_served(self):
    self.publish_broken(1)
    with self.assertRaisesRegex(
      errors.ServingError,
      r'UNKNOWN: 1 servable\(s\) did not become available: {name: toy version: 1 error: .*trunc',
    ):
      self.run_models(None)

  def test_an_older_version_will_do(self):
    self.publish(1)
    self.publish_broken(2)

    async def scenario(tested):
      self.assertEqual(self.states(tested), {2: END, 1: AVAILABLE})
      self.assertEqual(tested.resolve('toy').version, 1)

    self.run_models(scenario)

  def test_waits_for_the_first_version(self):
    shutil.rmtree(self.base)

    async def scenario(tested):
      starting = asyncio.create_task(tested.start())
      await asyncio.sleep(0.05)
      self.assertFalse(starting.done() or tested.is_ready())
      self.base.mkdir()
      self.publish(1)
      await starting
      self.assertTrue(tested.is_ready())

    self.run_models(scenario, start=False, poll_seconds=0.01)

  def test_no_moment_without_a_version(self):
    self.publish(1)

    async def scenario(tested):
      self.publish(2)
      polling = asyncio.create_task(tested.poll())
      seen = []
      while not polling.done():
        with tested.resolve('toy') as model:
          model.run('serving_default', VALUES, ('values',))
          seen.append(model.version)
        await asyncio.sleep(0)
      self.assertEqual((seen[0], tested.resolve('toy').version), (1, 2))
      await self.until(tested, {2: AVAILABLE, 1: END})

    self.run_models(scenario, keep=1)

  def test_a_borrowed_version_is_freed_last(self):
    self.publish(1)

    async def scenario(tested):
      with tested.resolve('toy') as borrowed:
        self.publish(2)
        await tested.poll()
        await asyncio.sleep(0.05)
        self.assertEqual(self.states(tested), {2: AVAILABLE, 1: UNLOADING})
        borrowed.run('serving_default', VALUES, ('values',))
      await self.until(tested, {2: AVAILABLE, 1: END})

    self.run_models(scenario, keep=1)

  def test_what_fails_replaces_nothing(self):
    self.publish(1)

    async def scenario(tested):
      self.publish_broken(2)
      staged = self.publish('.fails')
      path = staged / servable.RECORDS
      path.parent.mkdir()
      log = prediction_log_pb2.PredictionLog()
      log.predict_log.request.model_spec.signature_name = 'nosuch'
      with tf.io.TFRecordWriter(str(path)) as writer:
        writer.write(log.SerializeToString())
      staged.rename(self.base / '3')
      await tested.poll()
      self.assertEqual(self.states(tested), {3: END, 2: END, 1: AVAILABLE})
      codes = [found.error and found.error.code.value[0] for _, found in tested.statuses('toy')]
      self.assertEqual(codes, [9, 11, None])
      self.assertEqual(tested.resolve('toy').version, 1)

    self.run_models(scenario)

  def test_a_version_that_is_copied_slowly_is_tried_again_when_its_files_change(self):
    self.publish(1)

    async def scenario(tested):
      (self.base / '2').mkdir()
      for _ in range(3):  # Several looks at the same files: one try.
        await tested.poll()
      self.assertEqual(self.loads, [True, False])
      shutil.copytree(contract_server.originals() / 'tiny', self.base / '2', dirs_exist_ok=True)
      await tested.poll()
      self.assertEqual(tested.resolve('toy').version, 2)
      self.assertIsNone(tested.statuses('toy', 2)[0][1].error)

    self.run_models(scenario)

  def test_it_starts_afresh_once_its_folder_was_gone(self):
    self.publish(1)

    async def scenario(tested):
      shutil.rmtree(self.base / '1')
      await tested.poll()
      await self.until(tested, {1: END})
      self.assert_error(grpc.StatusCode.NOT_FOUND, r'Latest\(toy\)', tested.resolve, 'toy')
      self.assertFalse(tested.is_ready())
      self.publish(1)
      await tested.poll()
      self.assertEqual(tested.resolve('toy').version, 1)

    self.run_models(scenario)

  def test_a_folder_that_cannot_be_read_changes_nothing(self):
    self.publish(1)

    async def scenario(tested):
      self.base.rename(self.base.with_name('away'))
      await tested.poll()
      self.assertEqual(tested.resolve('toy').version, 1)

    self.run_models(scenario)

  def test_versions_are_followed(self):
    self.publish(1)

    async def scenario(tested):
      with absltest.mock.patch.object(models, 'scan', side_effect=ValueError('odd')) as scan:
        while not scan.called:  # An error does not end it.
          await asyncio.sleep(0.005)
      self.publish(2)
      while not tested.is_ready() or tested.resolve('toy').version != 2:
        await asyncio.sleep(0.005)

    self.run_models(scenario, poll_seconds=0.01)


class ScanTest(test_case.TestCase):
  def test_only_numbers_count(self):
    base = self.temp_dir()
    for name in ('1', '007', '7', '.tmp-9', 'abc', '8b', '1.5', '-4', '٣', str(2**63)):
      (base / name).mkdir()
    self.assertEqual(models.scan(base), {1: base / '1', 7: base / '7'})


if __name__ == '__main__':
  absltest.main()
