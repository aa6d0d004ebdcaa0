import threading

import grpc
import numpy as np
from absl.testing import absltest, parameterized

from pearl_tf.testing import scripted_server, test_case
from serving import client

GENEROUS = client.Deadlines(connect=30.0, act=20.0, adapt=20.0, begin=20.0)
CODE = grpc.StatusCode


def transition(number):
  """Returns observation, action and reward that add up to `number`."""
  return [number, 0.0], [0.5, -0.5], 0.0


class SessionTest(test_case.TestCase):
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

  def test_an_episode_and_its_adaptation(self):
    server, session = self.start()
    self.assertIsNone(session.belief)
    latent = session.begin_episode().value
    self.assert_belief(session.belief, [])
    self.assertTrue(((latent >= 0) & (latent < 1)).all())  # The prior's mean is zero.
    first = session.step([1.0, 2.0])
    self.assertAllClose(first.value, [0.1 * (3 + 3 * latent[0])] * 2)
    self.assertEqual((first.version, first.error), (1, None))
    self.assertBetween(first.round_trip, 0.0, first.age)
    second = session.step([0.5, 0.5], 4.0)
    session.end_episode([0.0, 0.0], 5.0)
    self.assertEqual(session.num_pending, 2)
    numbers = [3.0 + first.value.sum() + 4.0, 1.0 + second.value.sum() + 5.0]
    self.assert_belief(session.adapt(), numbers)
    self.assertEqual(session.num_pending, 0)
    self.assertAllEqual(session.latent.value, latent)  # Until the next episode.
    session.begin_episode()
    session.step([7.0, 7.0])  # From the last episode to this one: nothing happened.
    self.assertEqual(session.num_pending, 0)
    session.observe(*transition(6.0))
    self.assert_belief(session.adapt(), [*numbers, 6.0])
    updates = server.received('update')
    self.assertEqual([list(call.inputs['num_transitions']) for call in updates], [[2], [1]])
    self.assertEqual({call.version for call in updates}, {1})
    # Once for connecting, once for the prior: a later episode is one call.
    self.assertLen(server.received('GetModelMetadata'), 2)

  def test_nothing_new_costs_no_call(self):
    server, session = self.start()
    session.begin_episode()
    before = len(server.calls)
    self.assert_belief(session.adapt(), [])
    session.step([1.0, 2.0])
    session.step([1.0, 2.0])  # Without a reward there is nothing to learn.
    self.assert_belief(session.adapt(), [])
    self.assertLen(server.calls, before + 2)

  def test_next_observation(self):
    _, session = self.start({1: scripted_server.ToyModel(11, uses_next_observation=True)})
    session.begin_episode()
    action = session.step([1.0, 0.0])
    session.end_episode([10.0, 20.0], 2.0)
    self.assert_belief(session.adapt(), [3.0 + action.value.sum() + 30.0])
    with self.assertRaisesRegex(client.errors.InvalidInputError, 'needs next_observation'):
      session.observe(*transition(1.0))

  def test_a_new_task_starts_on_the_prior(self):
    _, session = self.start()
    session.begin_episode()
    session.observe(*transition(1.0))
    session.adapt()
    session.begin_task()
    self.assertEqual((session.belief, session.latent, session.num_pending), (None, None, 0))
    session.begin_episode()
    self.assert_belief(session.belief, [])

  def test_the_seed_decides(self):
    _, session = self.start(seed=3)
    others = [self.session(seed=seed) for seed in (3, 4)]
    latents = [one.begin_episode().value for one in (session, *others)]
    self.assertAllEqual(latents[0], latents[1])
    self.assertNotAllClose(latents[0], latents[2])

  def test_sampled_actions_differ(self):
    server, session = self.start(deterministic=False)
    session.begin_episode()
    self.assertNotAllClose(session.step([0.0, 0.0]).value, session.step([0.0, 0.0]).value)
    self.assertLen(server.received('act_sample'), 2)

  def test_actions_in_the_units_of_the_environment(self):
    low, high = [-2.0, 0.0], [2.0, 10.0]
    _, session = self.start(action_bounds=(low, high))
    session.begin_episode()
    plain = self.session()
    plain.begin_episode()
    share = plain.step([1.0, 2.0]).value
    value = session.step([1.0, 2.0]).value
    self.assertAllClose(value, [2.0 * share[0], 5.0 + 5.0 * share[1]])
    session.end_episode([0.0, 0.0], 1.0)
    self.assert_belief(session.adapt(), [3.0 + share.sum() + 1.0])  # The encoder is shown shares.
    self.assertAllEqual(session.step([500.0, 500.0]).value, high)  # Never beyond, by rounding.
    session.observe([0.0, 0.0], high, 0.0)
    self.assertAllClose(session.adapt().count, 2)
    with self.assertRaisesRegex(client.errors.InvalidInputError, r'action\[0\] is 2\.5, outside'):
      session.observe([0.0, 0.0], [2.5, 0.0], 0.0)
    wrong = self.session(action_bounds=([-1.0] * 3, [1.0] * 3))
    with self.assertRaisesRegex(client.errors.ModelMismatchError, r'shape \[2\], action_bounds'):
      wrong.begin_episode()

  def test_what_was_really_done(self):
    server, session = self.start()
    session.begin_episode()
    session.step([1.0, 0.0])
    session.step([2.0, 0.0], 3.0, action=[0.25, 0.25])
    self.assert_belief(session.adapt(), [1.0 + 0.5 + 3.0])
    server.fail_next(CODE.INTERNAL)
    with self.assertRaises(client.errors.CallError):
      session.step([4.0, 0.0])
    session.step([5.0, 0.0], 1.0)  # What was done at 4 is not known, so nothing is learned from it.
    self.assertEqual(session.num_pending, 0)
    server.fail_next(CODE.INTERNAL)
    with self.assertRaises(client.errors.CallError):
      session.step([6.0, 0.0])
    session.end_episode([0.0, 0.0], 0.5, action=[0.0, 0.5])
    self.assert_belief(session.adapt(), [4.5, 7.0])
    with self.assertRaisesRegex(
      client.errors.InvalidInputError, r'action\[1\] is -40.*bounds -1.0 and 1.0'
    ):
      session.observe([0.0, 0.0], [0.0, -40.0], 0.0)

  def test_hold_the_last_action(self):
    server, session = self.start(on_failure='hold', max_age_seconds=60.0)
    session.begin_episode()
    server.fail_next(CODE.INTERNAL)
    with self.assertRaises(client.errors.CallError):  # There is none in this episode yet.
      session.step([1.0, 0.0])
    fresh = session.step([1.0, 0.0])
    server.fail_next(CODE.INTERNAL)
    held = session.step([9.0, 0.0], 2.0)
    self.assertAllEqual(held.value, fresh.value)
    self.assertIs(held.error.code, CODE.INTERNAL)
    self.assertGreater(held.age, fresh.age)
    self.assertEqual((held.version, held.round_trip), (1, fresh.round_trip))
    session.end_episode([0.0, 0.0], 3.0)
    done = fresh.value.sum()  # In both transitions.
    self.assert_belief(session.adapt(), [1.0 + done + 2.0, 9.0 + done + 3.0])
    hasty = self.session(on_failure='hold', max_age_seconds=1e-9)
    hasty.begin_episode()
    hasty.step([1.0, 0.0])
    server.fail_next(CODE.INTERNAL)
    with self.assertRaises(client.errors.CallError):
      hasty.step([1.0, 0.0])

  def test_a_missed_deadline(self):
    _, session = self.start(on_failure='hold', max_age_seconds=60.0)
    session.begin_episode()
    session.step([1.0, 0.0])
    _, released = self.hold_calls('act')
    held = session.step([2.0, 0.0], timeout=0.02)
    self.assertIs(held.error.code, CODE.DEADLINE_EXCEEDED)
    self.assertRegex(str(held.error), r'no answer within 0\.02 s, the limit set by timeout')
    released.set()
    fresh = session.step([30.0, 0.0])  # Not the late answer for the observation before.
    self.assertIsNone(fresh.error)
    self.assertAllClose(fresh.value, 0.1 * (30 + session.latent.value.sum() * np.ones(2)))

  def test_observed_while_adapting(self):
    _, session = self.start()
    session.begin_episode()
    action = session.step([1.0, 0.0])
    for _ in range(2):
      session.step([1.0, 0.0], 1.0)
    arrived, released = self.hold_calls('update')
    future = session.adapt_in_background()
    arrived.wait(60)
    for _ in range(3):
      session.step([1.0, 0.0], 1.0)  # Acts meanwhile.
    self.assertIs(session.adapt_in_background(), future)
    self.assertEqual(session.num_pending, 5)
    released.set()
    future.result(60)
    self.assertEqual((session.belief.count, session.num_pending), (2, 3))
    self.assert_belief(session.adapt(), [1.0 + action.value.sum() + 1.0] * 5)

  def test_adapting_in_the_background_fails(self):
    server, session = self.start()
    session.begin_episode()
    session.observe(*transition(1.0))
    server.fail_next(CODE.INTERNAL, signature='update')
    with self.assertLogs('serving.client', 'WARNING') as logs:
      error = session.adapt_in_background(redraw=True).exception(60)
    self.assertIs(error.code, CODE.INTERNAL)
    self.assertIn('stays pending', logs.output[0])
    self.assertEqual(session.num_pending, 1)
    before = session.latent
    session.adapt_in_background(redraw=True).result(60)
    self.assert_belief(session.belief, [1.0])
    self.assertNotAllClose(session.latent.value, before.value)

  def test_a_task_ends_while_it_is_adapted_to(self):
    _, session = self.start()
    session.begin_episode()
    session.observe(*transition(1.0))
    arrived, released = self.hold_calls('update')
    future = session.adapt_in_background()
    arrived.wait(60)
    session.begin_task()
    released.set()
    future.result(60)
    session.begin_episode()
    self.assert_belief(session.belief, [])

  def test_wrong_data_is_not_sent(self):
    server, session = self.start()
    for premature in (lambda: session.step([0.0, 0.0]), lambda: session.observe(*transition(1.0))):
      with self.assertRaisesRegex(client.errors.InvalidInputError, 'begin_episode'):
        premature()
    session.begin_episode()
    before = len(server.calls)
    cases = {
      r'observation must have shape \[2\], got \[3\]': lambda: session.step([0.0] * 3),
      r'observation\[1\] is nan': lambda: session.step([0.0, np.nan]),
      r'observation\[0\] is 1e\+39': lambda: session.step([1e39, 0.0]),
      'observation must be real numbers': lambda: session.step(['a', 'b']),
      'observation is no array': lambda: session.step([0.0, [1.0, 2.0]]),
      r'timeout must be in \(0': lambda: session.step([0.0, 0.0], timeout=0.0),
      r'timeout must be a number of seconds': lambda: session.adapt(timeout='1'),
      r'reward\[\] is inf': lambda: session.observe([0.0] * 2, [0.0] * 2, np.inf),
      r'action must have shape \[2\]': lambda: session.observe([0.0] * 2, [0.0], 0.0),
    }
    for message, wrong in cases.items():
      with self.subTest(message), self.assertRaisesRegex(ValueError, message):
        wrong()
    self.assertLen(server.calls, before)
    self.assertEqual(session.num_pending, 0)
    # A wrong reading costs what it would have taught, not the episode.
    session.step([0.0, 0.0])
    with self.assertRaisesRegex(ValueError, 'reward'):
      session.step([0.0, 0.0], np.nan)
    session.step([0.0, 0.0], 1.0)
    session.step([0.0, 0.0], 1.0)
    self.assertEqual(session.num_pending, 1)

  @parameterized.parameters(
    ({'on_failure': 'stop'}, "must be 'raise' or 'hold', got 'stop'"),
    ({'max_age_seconds': float('nan')}, r'max_age_seconds must be in .*got nan'),
    ({'capacity': 0}, 'capacity must be an integer of at least 1, got 0'),
    ({'capacity': 2.0}, 'capacity must be an integer of at least 1, got 2.0'),
    ({'seed': -1}, 'seed must be an integer of at least 0, got -1'),
    ({'action_bounds': ([0.0], [0.0])}, r'action_bounds must be .*got \[0.0\] and \[0.0\]'),
    ({'action_bounds': ([-np.inf], [1.0])}, 'finite numbers'),
  )
  def test_arguments_are_checked(self, arguments, message):
    connection = self.enter_context(client.Connection('localhost:1'))
    with self.assertRaisesRegex(ValueError, message):
      client.Session(connection, **arguments)


if __name__ == '__main__':
  absltest.main()
