import asyncio

import numpy as np
from absl.testing import absltest, parameterized

from pearl_tf.testing import scripted_server, test_case
from serving import client

GENEROUS = client.Deadlines(connect=30.0, act=20.0, adapt=20.0, describe=20.0)


def transition(number):
  """Returns observation, action and reward that add up to `number`."""
  return [number, 0.0], [0.5, -0.5], 0.0


class BlockingTask:
  """A session that is driven alike whether it blocks or not."""

  def __init__(self, address, deadlines=GENEROUS, **settings):
    self.connection = client.connect(address, client.Options(deadlines=deadlines))
    self.session = client.Session(self.connection, **settings)

  def __getattr__(self, name):
    return getattr(self.session, name)

  def close(self):
    self.connection.close()


class AsyncioTask:
  def __init__(self, address, deadlines=GENEROUS, **settings):
    self._runner = asyncio.Runner()
    options = client.Options(deadlines=deadlines)
    self.connection = self._runner.run(client.aio.connect(address, options))
    self.session = client.aio.Session(self.connection, **settings)

  def __getattr__(self, name):
    found = getattr(self.session, name)
    if not asyncio.iscoroutinefunction(found):
      return found
    return lambda *arguments: self._runner.run(found(*arguments))

  def close(self):
    self._runner.run(self.connection.close())
    self._runner.close()


KINDS = [('blocking', BlockingTask), ('asyncio', AsyncioTask)]


class SessionTest(test_case.TestCase):
  def start(self, kind, versions=None, **settings):
    server = self.enter_context(
      scripted_server.ScriptedServer(versions or {1: scripted_server.ToyModel(11)})
    )
    task = kind(server.address, **settings)
    self.addCleanup(task.close)
    return server, task

  def assert_belief(self, belief, numbers):
    """Checks that the belief is that of the transitions with these sums."""
    self.assertEqual(belief.count, len(numbers))
    self.assertAllClose(belief.eta, [sum(numbers)] * 3)
    self.assertAllClose(belief.precision, [len(numbers)] * 3)

  @parameterized.named_parameters(KINDS)
  def test_an_episode_and_its_adaptation(self, kind):
    server, task = self.start(kind)
    self.assertIsNone(task.belief)
    latent = task.begin_episode()
    self.assert_belief(task.belief, [])
    self.assertTrue(((latent >= 0) & (latent < 1)).all())  # The prior's mean is zero.
    self.assertAllClose(task.act([1.0, 2.0]), [0.1 * (3 + 3 * latent[0])] * 2)
    for number in (1.0, 2.0):
      task.observe(*transition(number))
    self.assertEqual(task.num_pending, 2)
    self.assert_belief(task.adapt(), [1.0, 2.0])
    self.assertEqual(task.num_pending, 0)
    self.assertAllEqual(task.latent, latent)  # Until the next episode.
    self.assertAllClose(np.floor(task.begin_episode()), [1.0] * 3)  # Mean 1.5 and less than half.
    task.observe(*transition(6.0))
    self.assert_belief(task.adapt(), [1.0, 2.0, 6.0])
    updates = server.received('update')
    self.assertEqual([list(call.inputs['num_transitions']) for call in updates], [[2], [1]])
    self.assertEqual({call.version for call in updates}, {1})

  @parameterized.named_parameters(KINDS)
  def test_nothing_new_costs_no_call(self, kind):
    server, task = self.start(kind)
    task.begin_episode()
    before = len(server.calls)
    self.assert_belief(task.adapt(), [])
    self.assertLen(server.calls, before)

  @parameterized.named_parameters(KINDS)
  def test_the_seed_decides(self, kind):
    server, task = self.start(kind, seed=3)
    others = [kind(server.address, seed=seed) for seed in (3, 4)]
    for other in others:
      self.addCleanup(other.close)
    latents = [one.begin_episode() for one in (task, *others)]
    self.assertAllEqual(latents[0], latents[1])
    self.assertNotAllClose(latents[0], latents[2])

  @parameterized.named_parameters(KINDS)
  def test_sampled_actions_differ(self, kind):
    _, task = self.start(kind, deterministic=False)
    task.begin_episode()
    self.assertNotAllClose(task.act([0.0, 0.0]), task.act([0.0, 0.0]))

  @parameterized.named_parameters(KINDS)
  def test_an_episode_stays_on_its_version(self, kind):
    server, task = self.start(kind)
    task.begin_episode()
    task.observe(*transition(1.0))
    server.versions[2] = scripted_server.ToyModel(22)
    task.act([0.0, 0.0])
    task.adapt()
    self.assertEqual(task.version, 1)
    self.assertEqual({call.version for call in server.calls}, {None, 1})
    task.begin_episode()
    self.assertEqual(task.version, 2)
    self.assertEqual(task.belief.latent_tag, 22)
    self.assert_belief(task.belief, [1.0])  # Encoded anew from the transition.
    self.assertEqual(task.num_version_changes, 0)

  @parameterized.named_parameters(KINDS)
  def test_version_gone_in_an_episode(self, kind):
    server, task = self.start(kind)
    task.begin_episode()
    task.observe(*transition(4.0))
    task.adapt()
    task.observe(*transition(1000.0))  # Pending: not part of the belief, now or after the change.
    server.versions = {2: scripted_server.ToyModel(22)}
    action = task.act([0.0, 0.0])
    self.assertEqual((task.version, task.num_version_changes), (2, 1))
    self.assert_belief(task.belief, [4.0])
    self.assertAllClose(action, [0.1 * task.latent.sum()] * 2)
    self.assert_belief(task.adapt(), [4.0, 1000.0])

  @parameterized.named_parameters(KINDS)
  def test_version_gone_before_adapting(self, kind):
    server, task = self.start(kind)
    task.begin_episode()
    for number in (1.0, 2.0):
      task.observe(*transition(number))
      task.adapt()
    task.observe(*transition(3.0))
    server.versions = {2: scripted_server.ToyModel(22)}
    self.assert_belief(task.adapt(), [1.0, 2.0, 3.0])
    self.assertEqual(task.belief.latent_tag, 22)
    task.act([0.0, 0.0])  # The latent was of version 1, so the episode goes on with another one.
    self.assertEqual((task.version, task.num_version_changes), (2, 1))

  @parameterized.named_parameters(KINDS)
  def test_other_weights_under_the_same_number(self, kind):
    server, task = self.start(kind)
    task.begin_episode()
    task.observe(*transition(5.0))
    task.adapt()
    server.versions = {1: scripted_server.ToyModel(99)}  # A server that was set up anew.
    task.act([0.0, 0.0])
    self.assertEqual(task.belief.latent_tag, 99)
    self.assert_belief(task.belief, [5.0])
    server.versions = {1: scripted_server.ToyModel(98)}
    task.begin_episode()
    self.assertEqual(task.belief.latent_tag, 98)
    server.versions = {1: scripted_server.ToyModel(97)}
    task.observe(*transition(6.0))
    self.assert_belief(task.adapt(), [5.0, 6.0])
    self.assertEqual(task.belief.latent_tag, 97)

  @parameterized.named_parameters(KINDS)
  def test_version_change_may_end_the_episode(self, kind):
    server, task = self.start(kind, reencode_within_episode=False)
    task.begin_episode()
    server.versions = {2: scripted_server.ToyModel(22)}
    with self.assertRaisesRegex(client.errors.VersionChangedError, r'version 1 .* Specific\('):
      task.act([0.0, 0.0])
    task.begin_episode()
    task.act([0.0, 0.0])
    self.assertEqual(task.version, 2)

  @parameterized.named_parameters(KINDS)
  def test_next_version_has_other_sizes(self, kind):
    server, task = self.start(kind)
    task.begin_episode()
    observation, action, reward = transition(1.0)
    task.observe(observation, action, reward, [10.0, 20.0])
    task.adapt()
    server.versions[2] = scripted_server.ToyModel(22, latent_size=4, uses_next_observation=True)
    self.assertLen(task.begin_episode(), 4)
    self.assertAllClose(task.belief.eta, [31.0] * 4)
    with self.assertRaisesRegex(client.errors.InvalidInputError, 'needs next_observation'):
      task.observe(observation, action, reward)

  @parameterized.named_parameters(KINDS)
  def test_model_that_cannot_update(self, kind):
    server, task = self.start(kind, {1: scripted_server.ToyModel(11, supports_update=False)})
    task.begin_episode()
    for number in (1.0, 2.0, 3.0):
      task.observe(*transition(number))
      task.adapt()
    self.assert_belief(task.belief, [1.0, 2.0, 3.0])
    lengths = [int(call.inputs['num_transitions'][0]) for call in server.received('encode')]
    self.assertEqual(lengths, [0, 1, 2, 3])
    self.assertLen(server.received('update'), 1)  # It is asked once only.

  @parameterized.named_parameters(KINDS)
  def test_transitions_that_are_lost(self, kind):
    server, task = self.start(kind, capacity=2)
    task.begin_episode()
    for number in (1.0, 2.0, 3.0):
      task.observe(*transition(number))
      task.adapt()
    self.assert_belief(task.belief, [1.0, 2.0, 3.0])
    server.versions = {2: scripted_server.ToyModel(22)}
    task.begin_episode()
    self.assert_belief(task.belief, [2.0, 3.0])  # The newest that are kept.
    task.observe(*transition(4.0))
    task.observe(*transition(5.0))
    with self.assertRaisesRegex(client.errors.InvalidInputError, 'adapt more often'):
      task.observe(*transition(6.0))

  @parameterized.named_parameters(KINDS)
  def test_belief_from_elsewhere(self, kind):
    server, task = self.start(kind)
    task.begin_episode()
    task.observe(*transition(7.0))
    belief = task.adapt()
    other = kind(server.address, belief=belief)
    self.addCleanup(other.close)
    self.assertAllClose(np.floor(other.begin_episode()), [7.0] * 3)
    other.observe(*transition(1.0))
    self.assert_belief(other.adapt(), [7.0, 1.0])
    server.versions = {2: scripted_server.ToyModel(22)}
    third = kind(server.address, belief=belief)
    self.addCleanup(third.close)
    with self.assertRaisesRegex(client.errors.ContextLostError, 'belief of 1 transitions'):
      third.begin_episode()
    third.forget()
    third.begin_episode()
    self.assert_belief(third.belief, [])

  @parameterized.named_parameters(KINDS)
  def test_long_context_goes_in_pieces(self, kind):
    server, task = self.start(kind, capacity=5000)
    task.begin_episode()
    for _ in range(5000):
      task.observe(*transition(1.0))
    self.assert_belief(task.adapt(), [1.0] * 5000)
    shapes = [call.inputs['context'].shape for call in server.received('update')]
    self.assertEqual(shapes, [(1, 4096, 5), (1, 1024, 5)])
    server.versions = {2: scripted_server.ToyModel(22)}
    task.begin_episode()
    self.assert_belief(task.belief, [1.0] * 5000)

  @parameterized.named_parameters(KINDS)
  def test_wrong_data_is_not_sent(self, kind):
    server, task = self.start(kind)
    for premature in (lambda: task.act([0.0, 0.0]), lambda: task.observe(*transition(1.0))):
      with self.assertRaisesRegex(client.errors.InvalidInputError, 'begin_episode'):
        premature()
    task.begin_episode()
    before = len(server.calls)
    cases = {
      r'observation must have shape \[2\], got \[3\]': lambda: task.act([0.0] * 3),
      r'observation\[1\] is nan': lambda: task.act([0.0, np.nan]),
      r'observation\[0\] is 1e\+39': lambda: task.act([1e39, 0.0]),
      'observation must be real numbers': lambda: task.act(['a', 'b']),
      'observation is no array': lambda: task.act([0.0, [1.0, 2.0]]),
      r'reward\[\] is inf': lambda: task.observe([0.0] * 2, [0.0] * 2, np.inf),
      r'action must have shape \[2\]': lambda: task.observe([0.0] * 2, [0.0], 0.0),
    }
    for message, wrong in cases.items():
      with self.subTest(message), self.assertRaisesRegex(ValueError, message):
        wrong()
    self.assertLen(server.calls, before)
    self.assertEqual(task.num_pending, 0)


if __name__ == '__main__':
  absltest.main()
