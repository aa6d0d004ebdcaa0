import asyncio

import grpc
import numpy as np
from absl.testing import absltest, parameterized

from serving import errors
from serving.model_server import model_config
from tests.serving.support import manager_case

ACT = {'observation': np.ones([1, 3], np.float32), 'z': np.zeros([1, 2], np.float32)}


class ReloadConfigTest(manager_case.ManagerCase):
  def test_waits_for_a_new_model(self):
    self.publish(1)
    self.publish(5, self.root / 'other')

    async def scenario(tested):
      await tested.reload([self.config(), self.config(name='other')])
      self.assertEqual(tested.resolve('other').version, 5)
      self.assertEqual(tested.names(), ['toy', 'other'])

    self.run_manager(scenario)

  def test_drops_a_model_that_is_no_longer_listed(self):
    self.publish(1)
    self.publish(5, self.root / 'other')

    async def scenario(tested):
      await tested.reload([self.config(name='other')])
      self.assertIs(self.error_of(tested.resolve, 'toy')[0], grpc.StatusCode.NOT_FOUND)
      await manager_case.until(lambda: self.states(tested) == {1: manager_case.State.END})
      await tested.reload([self.config()])
      self.assertEqual(tested.resolve('toy').version, 1)

    self.run_manager(scenario)

  def test_does_not_wait_for_a_new_version(self):
    self.publish(1)
    self.publish(2)

    async def scenario(tested):
      both = model_config.Latest(2)
      labels = {'stable': 1, 'canary': 2}
      with self.assertRaisesRegex(
        errors.ServingError,
        'FAILED_PRECONDITION: Request to assign label to version 1 of model toy, which is not '
        'currently available for inference',
      ):
        await tested.reload([self.config(both, labels)])
      # The policy is in force nevertheless, so that trying again succeeds.
      await manager_case.until(lambda: len(self.states(tested)) == 2)
      await manager_case.until(
        lambda: set(self.states(tested).values()) == {manager_case.State.AVAILABLE}
      )
      await tested.reload([self.config(both, labels)])
      self.assertEqual(tested.resolve('toy', label='stable').version, 1)
      self.assertEqual(tested.resolve('toy', label='canary').version, 2)

    self.run_manager(scenario)

  def test_labels_of_a_new_model_are_set_at_start(self):
    self.publish(1)
    self.publish(2)

    async def scenario(tested):
      self.assertEqual(tested.resolve('toy', label='stable').version, 1)

    self.run_manager(scenario, self.config(model_config.All(), {'stable': 1}))

  def test_refused_labels_leave_the_old_ones(self):
    self.publish(1)

    async def scenario(tested):
      with self.assertRaises(errors.ServingError):
        await tested.reload([self.config(labels={'stable': 77})])
      self.assertEqual(tested.resolve('toy', label='stable').version, 1)

    self.run_manager(scenario, self.config(labels={'stable': 1}))

  def test_only_new_labels_may_be_ahead_of_their_version(self):
    self.publish(1)

    async def scenario(tested):
      await tested.reload([self.config(labels={'stable': 1, 'next': 2})])
      self.assertEqual(
        self.error_of(tested.resolve, 'toy', label='next'),
        (grpc.StatusCode.NOT_FOUND, 'Servable not found for request: Specific(toy, 2)'),
      )
      with self.assertRaisesRegex(errors.ServingError, 'version 3 of model toy'):
        await tested.reload([self.config(labels={'stable': 3})])

    self.run_manager(
      scenario,
      self.config(labels={'stable': 1}),
      allow_version_labels_for_unavailable_models=True,
    )

  def test_a_model_without_versions_blocks_no_other_reload(self):
    self.publish(1)
    self.publish(5, self.root / 'other')

    async def scenario(tested):
      empty = self.config(name='empty')
      waiting = asyncio.create_task(tested.reload([self.config(), empty]))
      await asyncio.sleep(0.1)
      self.assertFalse(waiting.done())
      await tested.reload([self.config(), self.config(name='other')])
      self.assertEqual(tested.resolve('other').version, 5)
      with self.assertRaises(errors.ServingError) as caught:
        await waiting
      self.assertIs(caught.exception.code, grpc.StatusCode.ABORTED)

    self.run_manager(scenario)

  def test_a_new_model_that_cannot_be_served(self):
    self.publish(1)
    (self.root / 'other' / '1').mkdir(parents=True)

    async def scenario(tested):
      with self.assertRaisesRegex(
        errors.ServingError, r'UNKNOWN: 1 servable\(s\) did not become available: {name: other'
      ):
        await tested.reload([self.config(), self.config(name='other')])
      self.assertEqual(tested.resolve('toy').version, 1)

    self.run_manager(scenario)

  @parameterized.parameters(((),), (('toy', 'toy'),))
  def test_refuses_a_list_as_a_whole(self, names):
    self.publish(1)

    async def scenario(tested):
      with self.assertRaises(errors.ServingError) as caught:
        await tested.reload([self.config(name=name) for name in names])
      self.assertIs(caught.exception.code, grpc.StatusCode.INVALID_ARGUMENT)
      self.assertEqual(tested.resolve('toy').version, 1)

    self.run_manager(scenario)


if __name__ == '__main__':
  absltest.main()
