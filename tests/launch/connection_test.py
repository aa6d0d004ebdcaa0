import os
import threading
from unittest import mock

from absl.testing import absltest

from pearl_tf.experiment import builder as builder_lib
from pearl_tf.experiment import config, interruption
from pearl_tf.experiment import experiment as experiment_lib
from pearl_tf.launch import connection, group, start
from pearl_tf.replay import packing, server, tables
from pearl_tf.testing import small_run, test_case


def build(*bindings, seed=0):
  bindings = (*small_run.LINE, *bindings)
  return builder_lib.Builder(experiment_lib.load([small_run.GIN_FILE], bindings, seed=seed))


class ConnectionTest(test_case.TestCase):
  def test_all_processes_are_of_one_run(self):
    service = tables.make_service_tables(packing.PackedLayout(1, 1))
    running = self.enter_context(server.ReplayServer(service))
    with self.assertRaisesRegex(TimeoutError, 'has not said within 0 s what run it is of'):
      connection.check(running.address, build(), 0.1)
    connection.announce(running.address, build())
    connection.check(running.address, build(), 60)
    connection.announce(running.address, build())  # Of a server that was started again.
    connection.check(running.address, build(), 60)

    with self.assertRaisesRegex(
      connection.DisagreementError,
      r'(?s)-PearlTraining.batch_size = 16\n\+PearlTraining.batch_size = 17',
    ):
      connection.check(running.address, build('PearlTraining.batch_size = 17'), 60)
    with self.assertRaisesRegex(connection.DisagreementError, r'(?s)-seed = 0\n\+seed = 1'):
      connection.check(running.address, build(seed=1), 60)

    # An actor has nothing but the address.
    run = connection.read(running.address, 60)
    same = builder_lib.Builder(experiment_lib.of_text(run['configuration'], run['seed']))
    connection.check(running.address, same, 60)

  def test_a_server_that_is_not_there(self):
    address = f'localhost:{group.free_port()}'
    with self.assertRaisesRegex(TimeoutError, f'replay server at {address} has not answered'):
      connection.wait_for_server(address, 0.1)

  def test_ends_in_a_call_that_is_not_answered_although_the_server_answers_others(self):
    # A server that died while the link was down leaves a connection that only the caller knows of.
    ended = threading.Event()
    code = []

    def end(number):
      code.append(number)
      ended.set()
      raise SystemExit

    with (
      mock.patch.object(connection, '_answers', return_value=True),
      mock.patch.object(connection, '_ATTEMPT_SECONDS', 0.01),
      mock.patch.object(interruption, 'write') as write,
      mock.patch.object(os, '_exit', end),
      connection.Lifeline('robots:8000', 0.1) as lifeline,
    ):
      with lifeline.call():
        pass
      self.assertFalse(ended.wait(0.5))
      with lifeline.call():
        self.assertTrue(ended.wait(60))
    self.assertEqual(code, [connection.EXIT_UNREACHABLE])
    self.assertIn('replay server at robots:8000 has not answered for', write.call_args.args[0])

  def test_a_method_that_needs_one_process_says_so(self):
    path = small_run.ROOT / 'trainers' / 'configs' / 'baselines' / 'point_robot_promp.gin'
    with self.assertRaisesRegex(config.ConfigError, 'ProMP cannot collect in other processes'):
      start.build(experiment_lib.load([path]))


if __name__ == '__main__':
  absltest.main()
