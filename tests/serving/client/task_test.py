import threading

import grpc
import numpy as np
from absl.testing import absltest

from pearl_tf.testing import scripted_server, test_case
from serving import client

GENEROUS = client.Deadlines(connect=30.0, act=20.0, adapt=20.0, begin=20.0)
CODE = grpc.StatusCode


def transition(number):
  """Returns observation, action and reward that add up to `number`."""
  return [number, 0.0], [0.5, -0.5], 0.0


class TaskTest(test_case.TestCase):
  def start(self, versions=None, *, deadlines=GENEROUS, **settings):
    self.server = self.enter_context(
      scripted_server.ScriptedServer(versions or {1: scripted_server.ToyModel(11)})
    )
    self.model = self.enter_context(
      client.connect(self.server.address, client.Options(deadlines=deadlines))
    )
    return self.server, self.session(**settings)

  def session(self, **settings):
    return self.enter_context(client.Session(self.model, **settings))

  def assert_belief(self, belief, numbers):
    """Checks that the belief is that of the transitions with these sums."""
    self.assertEqual(belief.count, len(numbers))
    self.assertAllClose(belief.eta, [sum(numbers)] * 3, rtol=1e-5)
    self.assertAllClose(belief.precision, [len(numbers)] * 3)

  def hold_calls(self, signature):
    """Makes the server keep calls of a signature; returns an event each, for arrived and go on."""
    arrived, released = threading.Event(), threading.Event()
    self.addCleanup(released.set)  # Before the server stops.
    model = self.server.versions[1]
    run = model.run

    def waiting(name, inputs):
      if name == signature:
        arrived.set()
        released.wait(60)
      return run(name, inputs)

    model.run = waiting
    return arrived, released

  def test_an_episode_stays_on_its_version(self):
    server, session = self.start()
    session.begin_episode()
    session.observe(*transition(1.0))
    server.versions[2] = scripted_server.ToyModel(22)
    session.step([0.0, 0.0])
    session.adapt()
    self.assertEqual(session.latent.version, 1)
    self.assertEqual({call.version for call in server.calls}, {None, 1})
    session.begin_episode()
    self.assertEqual(session.latent.version, 2)
    self.assertEqual(session.belief.latent_tag, 22)
    self.assert_belief(session.belief, [1.0])  # Encoded anew from the transition.
    self.assertEqual(session.num_version_changes, 0)

  def test_same_weights_under_another_number(self):
    server, session = self.start()
    session.begin_episode()
    session.observe(*transition(1.0))
    session.adapt()
    server.versions = {2: scripted_server.ToyModel(11)}
    before = len(server.received('encode'))
    session.begin_episode()
    self.assertEqual((session.latent.version, session.belief.version), (2, 2))
    self.assertLen(server.received('encode'), before)

  def test_version_gone_in_an_episode(self):
    server, session = self.start()
    session.begin_episode()
    session.observe(*transition(4.0))
    session.adapt()
    session.observe(*transition(1000.0))  # Pending: not part of the belief, now or after.
    server.versions = {2: scripted_server.ToyModel(22)}
    with self.assertLogs('serving.client', 'WARNING'):
      action = session.step([0.0, 0.0])
    self.assertEqual((action.version, session.num_version_changes), (2, 1))
    self.assert_belief(session.belief, [4.0])
    self.assertAllClose(action.value, [0.1 * session.latent.value.sum()] * 2)
    self.assert_belief(session.adapt(), [4.0, 1000.0])

  def test_version_gone_and_no_time_to_move(self):
    server, session = self.start(on_failure='hold', max_age_seconds=60.0)
    session.begin_episode()
    session.observe(*transition(4.0))
    session.adapt()
    session.step([1.0, 0.0])
    arrived, released = self.hold_calls('encode')
    server.versions = {2: server.versions[1]}
    server.versions[2].latent_tag = 22
    while not arrived.is_set():
      self.assertIsNotNone(session.step([1.0, 0.0], timeout=0.2).error)
    held = session.step([1.0, 0.0], timeout=0.01)
    self.assertIs(held.error.code, CODE.DEADLINE_EXCEEDED)
    self.assertRegex(str(held.error), 'the move to another one goes on')
    released.set()
    fresh = session.step([1.0, 0.0])
    self.assertEqual((fresh.version, session.num_version_changes), (2, 1))
    self.assert_belief(session.belief, [4.0])
    self.assertLen(server.received('encode'), 2)  # The prior, and one move.

  def test_version_gone_before_adapting(self):
    server, session = self.start()
    session.begin_episode()
    for number in (1.0, 2.0):
      session.observe(*transition(number))
      session.adapt()
    session.observe(*transition(3.0))
    server.versions = {2: scripted_server.ToyModel(22)}
    self.assert_belief(session.adapt(), [1.0, 2.0, 3.0])
    self.assertEqual(session.belief.latent_tag, 22)
    # The latent was of version 1, so the episode goes on with another one.
    self.assertEqual(session.step([0.0, 0.0]).version, 2)
    self.assertEqual(session.num_version_changes, 1)

  def test_other_weights_under_the_same_number(self):
    server, session = self.start()
    session.begin_episode()
    session.observe(*transition(5.0))
    session.adapt()
    server.versions = {1: scripted_server.ToyModel(99)}  # A server that was set up anew.
    session.step([0.0, 0.0])
    self.assertEqual(session.belief.latent_tag, 99)
    self.assert_belief(session.belief, [5.0])
    server.versions = {1: scripted_server.ToyModel(98)}
    session.begin_episode()
    self.assertEqual(session.belief.latent_tag, 98)
    server.versions = {1: scripted_server.ToyModel(97)}
    session.observe(*transition(6.0))
    self.assert_belief(session.adapt(), [5.0, 6.0])
    self.assertEqual(session.belief.latent_tag, 97)

  def test_version_change_may_end_the_episode(self):
    server, session = self.start(moves_within_episode=False, on_failure='hold')
    session.begin_episode()
    session.step([0.0, 0.0])
    server.versions = {2: scripted_server.ToyModel(22)}
    with self.assertRaisesRegex(client.errors.VersionChangedError, r'version 1 .* Specific\('):
      session.step([0.0, 0.0])
    session.begin_episode()
    self.assertEqual(session.step([0.0, 0.0]).version, 2)

  def test_next_version_has_other_sizes(self):
    server, session = self.start()
    session.begin_episode()
    observation, action, reward = transition(1.0)
    session.observe(observation, action, reward, [10.0, 20.0])
    session.adapt()
    server.versions[2] = scripted_server.ToyModel(22, latent_size=4, uses_next_observation=True)
    # As a server that checks shapes answers the latent of 3 numbers.
    server.fail_next(CODE.INVALID_ARGUMENT, details='shape', signature='sample_z')
    self.assertLen(session.begin_episode().value, 4)
    self.assertAllClose(session.belief.eta, [31.0] * 4)
    server.versions = {3: scripted_server.ToyModel(33, observation_size=5)}
    with self.assertRaisesRegex(client.errors.ModelMismatchError, 'of another environment'):
      session.step([0.0, 0.0])

  def test_model_that_cannot_update(self):
    server, session = self.start({1: scripted_server.ToyModel(11, supports_update=False)})
    session.begin_episode()
    for number in (1.0, 2.0, 3.0):
      session.observe(*transition(number))
      session.adapt()
    self.assert_belief(session.belief, [1.0, 2.0, 3.0])
    lengths = [int(call.inputs['num_transitions'][0]) for call in server.received('encode')]
    self.assertEqual(lengths, [0, 1, 2, 3])
    self.assertLen(server.received('update'), 1)  # It is asked once only.

  def test_transitions_that_are_lost(self):
    server, session = self.start(capacity=2)
    session.begin_episode()
    for number in (1.0, 2.0, 3.0):
      session.observe(*transition(number))
      session.adapt()
    self.assert_belief(session.belief, [1.0, 2.0, 3.0])
    server.versions = {2: scripted_server.ToyModel(22)}
    session.begin_episode()
    self.assert_belief(session.belief, [2.0, 3.0])  # The newest that are kept.
    session.observe(*transition(4.0))
    session.observe(*transition(5.0))
    with self.assertLogs('serving.client', 'WARNING') as logs:
      session.observe(*transition(6.0))
      session.observe(*transition(7.0))
    self.assertLen(logs.output, 1)
    self.assertRegex(logs.output[0], 'adapt more often, or give the session a capacity above 2')
    self.assert_belief(session.adapt(), [2.0, 3.0, 6.0, 7.0])

  def test_belief_from_elsewhere(self):
    server, session = self.start()
    session.begin_episode()
    session.observe(*transition(7.0))
    belief = session.adapt()
    other = self.session(belief=belief)
    self.assertAllClose(np.floor(other.begin_episode().value), [7.0] * 3)
    other.observe(*transition(1.0))
    self.assert_belief(other.adapt(), [7.0, 1.0])
    server.versions = {2: scripted_server.ToyModel(22)}
    third = self.session(belief=belief)
    with self.assertRaisesRegex(client.errors.ContextLostError, 'belief of 1 transitions'):
      third.begin_episode()
    third.begin_task()
    third.begin_episode()
    self.assert_belief(third.belief, [])

  def test_long_context_goes_in_pieces(self):
    server, session = self.start(capacity=5000)
    session.begin_episode()
    for _ in range(5000):
      session.observe(*transition(1.0))
    self.assert_belief(session.adapt(), [1.0] * 5000)
    shapes = [call.inputs['context'].shape for call in server.received('update')]
    self.assertEqual(shapes, [(1, 4096, 5), (1, 1024, 5)])
    server.versions = {2: scripted_server.ToyModel(22)}
    session.begin_episode()
    self.assert_belief(session.belief, [1.0] * 5000)

  def test_wide_context_goes_in_smaller_pieces(self):
    wide = scripted_server.ToyModel(11, observation_size=400)
    server, session = self.start({1: wide})
    session.begin_episode()
    for _ in range(257):
      session.observe(np.zeros(400), [0.5, 0.5], 0.0)
    session.adapt()
    shapes = [call.inputs['context'].shape for call in server.received('update')]
    self.assertEqual(shapes, [(1, 256, 403), (1, 1, 403)])


if __name__ == '__main__':
  absltest.main()
