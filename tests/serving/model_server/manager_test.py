import asyncio
import shutil

import grpc
import numpy as np
import tensorflow as tf
from absl.testing import absltest, parameterized
from tensorflow_serving.apis import prediction_log_pb2

from serving import errors
from serving.model_server import manager, model_config, warmup
from tests.serving.support import manager_case

ACT = {'observation': np.ones([1, 3], np.float32), 'z': np.zeros([1, 2], np.float32)}


class ResolveTest(manager_case.ManagerCase):
  def test_the_largest_version_by_default(self):
    self.publish(2)
    self.publish(10)

    async def scenario(tested):
      self.assertEqual(tested.resolve('toy').version, 10)
      self.assertEqual(tested.resolve('toy', version=2).version, 2)
      self.assertTrue(tested.is_ready())
      self.assertEqual(tested.names(), ['toy'])
      self.assertEqual([status.version for status in tested.statuses('toy')], [10, 2])

    self.run_manager(scenario, self.config(model_config.All()))

  def test_what_is_not_there(self):
    self.publish(1)

    async def scenario(tested):
      not_found = grpc.StatusCode.NOT_FOUND
      self.assertEqual(
        self.error_of(tested.resolve, 'nope'),
        (not_found, 'Servable not found for request: Latest(nope)'),
      )
      self.assertEqual(
        self.error_of(tested.resolve, 'toy', version=7),
        (not_found, 'Servable not found for request: Specific(toy, 7)'),
      )
      self.assertEqual(
        self.error_of(tested.resolve, 'toy', label='stable'),
        (
          grpc.StatusCode.INVALID_ARGUMENT,
          'Unrecognized servable version label: stable',
        ),
      )
      self.assertEqual(
        self.error_of(tested.statuses, 'nope'),
        (not_found, 'Could not find any versions of model nope'),
      )
      self.assertEqual(
        self.error_of(tested.statuses, 'toy', 9),
        (not_found, 'Could not find version 9 of model toy'),
      )

    self.run_manager(scenario)

  @parameterized.parameters(
    (model_config.Latest(), [4]),
    (model_config.Latest(2), [4, 3]),
    (model_config.All(), [4, 3, 1]),
    (model_config.Specific(frozenset({1, 9})), [1]),
  )
  def test_policy(self, policy, expected):
    for version in (1, 3, 4):
      self.publish(version)

    async def scenario(tested):
      self.assertEqual(self.states(tested), dict.fromkeys(expected, manager_case.State.AVAILABLE))

    self.run_manager(scenario, self.config(policy))


class StartTest(manager_case.ManagerCase):
  def test_fails_if_nothing_can_be_served(self):
    self.publish_broken(1)
    with self.assertRaisesRegex(
      errors.ServingError,
      r'UNKNOWN: 1 servable\(s\) did not become available: {name: toy version: 1 error: Read less',
    ):
      self.run_manager(None)

  def test_an_older_version_will_do(self):
    self.publish(1)
    self.publish_broken(2)

    async def scenario(tested):
      self.assertEqual(
        self.states(tested), {2: manager_case.State.END, 1: manager_case.State.AVAILABLE}
      )
      self.assertEqual(tested.resolve('toy').version, 1)

    self.run_manager(scenario, self.config(model_config.Latest(2)))

  def test_waits_for_the_first_version(self):
    shutil.rmtree(self.base)

    async def scenario(tested):
      starting = asyncio.create_task(tested.start())
      await asyncio.sleep(0.1)
      self.assertFalse(starting.done())
      self.assertFalse(tested.is_ready())
      self.publish(1)
      await starting
      self.assertTrue(tested.is_ready())

    self.run_manager(scenario, start=False)

  def test_refuses_a_name_listed_twice(self):
    with self.assertRaisesRegex(errors.ServingError, 'multiple times'):
      manager.ModelManager((self.config(), self.config()))

  def test_refuses_a_negative_poll_interval(self):
    with self.assertRaisesRegex(ValueError, 'poll_seconds must be >= 0, got -1'):
      manager.ModelManager((self.config(),), poll_seconds=-1)


class HotReloadTest(manager_case.ManagerCase):
  def test_no_moment_without_a_version(self):
    self.publish(1)

    async def scenario(tested):
      self.publish(2)
      seen = []
      while not seen or seen[-1] == 1:
        with tested.resolve('toy') as model:
          model.run('act', ACT, ('action',))
          seen.append(model.version)
        await asyncio.sleep(0)
      self.assertEqual(seen[0], 1)
      await manager_case.until(
        lambda: self.states(tested) == {2: manager_case.State.AVAILABLE, 1: manager_case.State.END}
      )
      self.assertIs(self.error_of(tested.resolve, 'toy', version=1)[0], grpc.StatusCode.NOT_FOUND)

    self.run_manager(scenario)

  def test_both_stay_with_two_versions(self):
    self.publish(1)

    async def scenario(tested):
      self.publish(2)
      await manager_case.until(lambda: tested.resolve('toy').version == 2)
      self.assertEqual(tested.resolve('toy', version=1).version, 1)
      self.publish(3)
      await manager_case.until(
        lambda: (
          self.states(tested)
          == {
            3: manager_case.State.AVAILABLE,
            2: manager_case.State.AVAILABLE,
            1: manager_case.State.END,
          }
        )
      )

    self.run_manager(scenario, self.config(model_config.Latest(2)))

  def test_a_borrowed_version_is_freed_last(self):
    self.publish(1)

    async def scenario(tested):
      with tested.resolve('toy') as borrowed:
        self.publish(2)
        await manager_case.until(lambda: self.states(tested).get(1) == manager_case.State.UNLOADING)
        await asyncio.sleep(0.1)
        self.assertEqual(borrowed.version, 1)
        borrowed.run('act', ACT, ('action',))
        self.assertEqual(self.states(tested)[1], manager_case.State.UNLOADING)
      await manager_case.until(lambda: self.states(tested)[1] == manager_case.State.END)

    self.run_manager(scenario)

  def test_a_broken_version_replaces_nothing(self):
    self.publish(1)

    async def scenario(tested):
      self.publish_broken(2)
      await manager_case.until(lambda: self.states(tested).get(2) == manager_case.State.END)
      (status,) = tested.statuses('toy', 2)
      self.assertEqual(status.code, 11)
      self.assertStartsWith(status.message, 'Read less bytes than requested')
      self.assertEqual(tested.resolve('toy').version, 1)

    self.run_manager(scenario)

  def test_a_version_that_fails_its_warm_up_replaces_nothing(self):
    self.publish(1)

    async def scenario(tested):
      shutil.copytree(manager_case.valid_version(), self.base / '.tmp')
      path = self.base / '.tmp' / warmup.FILE
      path.parent.mkdir(exist_ok=True)
      log = prediction_log_pb2.PredictionLog()
      log.predict_log.request.model_spec.signature_name = 'nosuch'
      with tf.io.TFRecordWriter(str(path)) as writer:
        writer.write(log.SerializeToString())
      (self.base / '.tmp').rename(self.base / '2')
      await manager_case.until(lambda: self.states(tested).get(2) == manager_case.State.END)
      self.assertEqual(tested.statuses('toy', 2)[0].code, 9)
      self.assertEqual(tested.resolve('toy').version, 1)

    self.run_manager(scenario)

  def test_a_version_that_is_copied_slowly_is_tried_again_when_its_files_change(self):
    self.publish(1)

    async def scenario(tested):
      (self.base / '2').mkdir()
      await manager_case.until(lambda: self.states(tested).get(2) == manager_case.State.END)
      self.assertEqual(tested.resolve('toy').version, 1)
      await asyncio.sleep(0.2)  # Several looks at the same files: one try.
      self.assertEqual(self.loads, [('toy', 1, True), ('toy', 2, False)])
      shutil.copytree(manager_case.valid_version(), self.base / '2', dirs_exist_ok=True)
      await manager_case.until(lambda: tested.resolve('toy').version == 2)
      self.assertEqual(tested.statuses('toy', 2)[0].code, 0)

    self.run_manager(scenario)

  def test_it_starts_afresh_once_its_folder_was_gone(self):
    self.publish(1)

    async def scenario(tested):
      self.publish_broken(2)
      await manager_case.until(lambda: self.states(tested).get(2) == manager_case.State.END)
      shutil.rmtree(self.base / '2')
      await asyncio.sleep(0.2)
      self.publish(2)
      await manager_case.until(lambda: tested.resolve('toy').version == 2)
      self.assertEqual(tested.statuses('toy', 2)[0].code, 0)

    self.run_manager(scenario)

  def test_tries_again_if_asked_to(self):
    self.publish(1)

    async def scenario(tested):
      (self.base / '2').mkdir()
      await manager_case.until(lambda: ('toy', 2, False) in self.loads)
      shutil.copytree(manager_case.valid_version(), self.base / '2', dirs_exist_ok=True)
      await manager_case.until(lambda: tested.resolve('toy').version == 2)

    self.run_manager(scenario, num_load_retries=1000, load_retry_seconds=0.02)

  def test_all_versions_removed(self):
    self.publish(1)

    async def scenario(tested):
      shutil.rmtree(self.base / '1')
      await manager_case.until(lambda: self.states(tested) == {1: manager_case.State.END})
      self.assertIs(self.error_of(tested.resolve, 'toy')[0], grpc.StatusCode.NOT_FOUND)
      self.assertFalse(tested.is_ready())

    self.run_manager(scenario)

  def test_a_folder_that_cannot_be_read_changes_nothing(self):
    self.publish(1)

    async def scenario(tested):
      self.base.rename(self.root / 'away')
      await asyncio.sleep(0.2)
      self.assertEqual(tested.resolve('toy').version, 1)

    self.run_manager(scenario)

  def test_no_polling_if_it_is_off(self):
    self.publish(1)

    async def scenario(tested):
      self.publish(2)
      await asyncio.sleep(0.1)
      self.assertEqual(self.states(tested), {1: manager_case.State.AVAILABLE})
      await tested.poll()
      await manager_case.until(lambda: tested.resolve('toy').version == 2)

    self.run_manager(scenario, poll_seconds=0)


if __name__ == '__main__':
  absltest.main()
