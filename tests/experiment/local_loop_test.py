import json
import os
import re
import signal
from unittest import mock

import numpy as np
from absl.testing import absltest, parameterized

from pearl_tf.agents import learner
from pearl_tf.collect import collector
from pearl_tf.environments import gymnasium_adapter
from pearl_tf.experiment import checkpoints, local_loop, metrics, run_folder, trained
from pearl_tf.testing import fakes, small_run, test_case


def train(root, *bindings, seed=0):
  return local_loop.train(
    root,
    gin_files=[small_run.GIN_FILE],
    gin_bindings=(*small_run.LINE, *bindings),
    seed=seed,
  )


def newest(root):
  return checkpoints.Checkpoints(root / 'checkpoints', prefix='latest').latest()


class LocalLoopTest(test_case.TestCase):
  def setUp(self):
    super().setUp()
    self.root = self.temp_dir() / 'run'

  def test_a_run_and_what_becomes_of_its_folder(self):
    pictures = []
    with mock.patch.object(metrics.tf.summary, 'image', lambda name, _: pictures.append(name)):
      self.assertTrue(train(self.root, 'Training.evaluation_interval = 2'))
    self.assertEqual(pictures, ['test/returns_by_trajectory'])
    records = metrics.read(self.root)
    self.assertEqual([record['iteration'] for record in records], [1, 2, 3])
    self.assertEqual([record['gradient_steps'] for record in records], [40, 80, 120])
    # 4 tasks x 40, then 3 visits x (40 + 20 + 40), all multiples of the 5 steps of an episode.
    self.assertEqual([record['env_steps'] for record in records], [460, 760, 1060])
    evaluated = ['test/final_return' in record for record in records]
    self.assertEqual(evaluated, [False, True, True])  # Every second one, and the last.
    for record in records:
      for name in ('loss/critic', 'loss/kl', 'loss/actor', 'collect/return/extra'):
        self.assertTrue(np.isfinite(record[name]), name)
      self.assertGreater(record['posterior/variance'], 0)
    trajectories = [name for name in records[2] if name.startswith('test/return_by_trajectory')]
    self.assertLen(trajectories, 12)  # 60 steps per repeat of 5 steps each.

    self.assert_documented(records[2])

    progress = checkpoints.progress(newest(self.root))
    self.assertEqual((progress['iteration'], progress['env_steps']), (3, 1060))
    returns = [record['train/final_return'] for record in records[1:]]
    self.assertEqual(progress['recent_returns'], returns)
    self.assertEqual(progress['best_return'], max(returns[0], float(np.mean(returns))))
    names = sorted(path.name for path in (self.root / 'checkpoints').iterdir())
    self.assertEqual(names[0][:5], 'best-')
    # By gradient steps, as the best one.
    self.assertEqual(names[1:], ['latest-000000000080', 'latest-000000000120'])
    for number in (80, 120):
      self.assertEqual(trained.load(self.root, str(number)).name, f'latest-{number:012d}')
    tasks = json.loads((self.root / 'tasks.json').read_text())
    self.assertEqual((len(tasks['train']), len(tasks['test'])), (4, 2))

    # The same command finds nothing left to do, and changes nothing.
    before = (self.root / 'metrics.jsonl').read_bytes()
    with mock.patch.object(learner.Learner, 'run', side_effect=AssertionError('trained again')):
      self.assertTrue(train(self.root, 'Training.evaluation_interval = 2'))
    self.assertEqual((self.root / 'metrics.jsonl').read_bytes(), before)

    # Another configuration is refused and changes nothing either.
    with self.assertRaisesRegex(run_folder.RunFolderError, r'(?s)\+PearlTraining.batch_size = 17'):
      train(self.root, 'Training.evaluation_interval = 2', 'PearlTraining.batch_size = 17')
    self.assertEqual((self.root / 'metrics.jsonl').read_bytes(), before)

  def assert_documented(self, record):
    logged = {re.sub(r'/\d+$', '/K', name) for name in record}
    page = (small_run.ROOT / 'docs' / 'metrics.md').read_text()
    documented = set(re.findall(r'^\| `([\w/]+)` \|', page, re.MULTILINE))
    # The success rate is of environments that tell it.
    documented = {name for name in documented if not name.startswith(('actors/', 'learner/'))}
    of_others = {'test/success_rate', 'train/success_rate', 'test/standardized_error'}
    self.assertEqual(documented, logged | of_others)

  def test_callbacks_get_each_line_and_may_stop(self):
    records = []

    def stop_after_two(record):
      records.append(record)
      return len(records) == 2

    arguments = {'gin_files': [small_run.GIN_FILE], 'gin_bindings': small_run.LINE}
    finished = local_loop.train(self.root, callbacks=[stop_after_two], **arguments)
    self.assertFalse(finished)
    self.assertEqual(records, metrics.read(self.root))
    self.assertEqual(checkpoints.progress(newest(self.root))['iteration'], 2)
    finished = local_loop.train(self.root, callbacks=[stop_after_two], **arguments)
    self.assertTrue(finished)
    self.assertEqual([record['iteration'] for record in records], [1, 2, 3])

  def test_divergence_keeps_the_last_good_checkpoint(self):
    # Rewards that fit into float32, and whose squares do not.
    bindings = (
      'make.reward_scale = 1e30',
      'Tolerance.largest_number = 3e38',
      'Training.num_iterations = 2',
    )
    with self.assertRaisesRegex(learner.DivergenceError, 'loss/critic.* not finite'):
      train(self.root, *bindings)
    saved = newest(self.root)
    self.assertEqual(checkpoints.progress(saved)['num_saves'], 1)  # The initial pool.
    variables = checkpoints.tf.train.load_checkpoint(str(saved / 'variables'))
    for name, shape in variables.get_variable_to_shape_map().items():
      if shape:
        self.assertTrue(np.isfinite(variables.get_tensor(name)).all(), name)
    self.assertFalse(list((self.root / 'checkpoints').glob('best-*')))

  def test_weights_that_are_not_finite_are_never_saved_nor_acted_on(self):
    original = learner.Learner.run

    def spoil(self, num_steps):
      sums = original(self, num_steps)
      self._agent.actor.trainable_variables[0].assign_add(
        np.full(self._agent.actor.trainable_variables[0].shape, np.nan, np.float32)
      )
      return sums

    with (
      mock.patch.object(learner.Learner, 'run', spoil),
      self.assertRaisesRegex(learner.DivergenceError, 'weights are not finite after gradient step'),
    ):
      train(self.root, 'PearlTraining.gradient_steps_per_iteration = 10')
    self.assertEqual(checkpoints.progress(newest(self.root))['num_saves'], 1)

  @parameterized.parameters('nan', 'raise')
  def test_a_fault_of_the_environment_is_named(self, fault):
    with self.assertRaises(gymnasium_adapter.EnvironmentFault) as caught:
      train(
        self.root,
        "make.name = 'pearl_tf.testing.fakes:FaultyLine'",
        f"make.fault = '{fault}'",
      )
    self.assertIn('Environment FaultyLine, task 1 (parameters', str(caught.exception))
    self.assertIn(fakes.FAULTS[fault], str(caught.exception))

  def test_a_simulator_that_blows_up_now_and_then_does_not_end_a_run(self):
    unstable = "make.name = 'pearl_tf.testing.fakes:UnstableLine'"
    with self.assertRaisesRegex(gymnasium_adapter.EnvironmentFault, r'observation\[0\] is nan'):
      train(self.root, unstable, 'Tolerance.largest_share = 0.0')
    self.assertTrue(train(self.root, unstable))
    dropped = [record['collect/dropped_episodes'] for record in metrics.read(self.root)]
    self.assertGreater(dropped[0], 0)
    self.assertEqual(dropped, sorted(dropped))

  def test_an_action_that_is_not_a_number_is_the_policy_s_fault(self):
    original = collector.Collector.visit

    def visit(self, tasks, **kwargs):
      if visits:
        raise gymnasium_adapter.PolicyFault('the policy gave Line an action that is not a number')
      visits.append(tasks)
      return original(self, tasks, **kwargs)

    visits = []
    message = r'^the policy gave Line .* The means of the last losses: loss/critic [\d.]+.*was kept'
    with (
      mock.patch.object(collector.Collector, 'visit', visit),
      self.assertRaisesRegex(learner.DivergenceError, message),
    ):
      train(self.root)

  def test_a_signal_saves_in_the_middle_and_the_pool_is_never_collected_again(self):
    original = learner.Learner.run
    calls = []

    def interrupted(self, num_steps):
      calls.append(num_steps)
      if len(calls) == 6:  # The second chunk of ten steps of the second iteration.
        os.kill(os.getpid(), signal.SIGTERM)
      return original(self, num_steps)

    with mock.patch.object(learner.Learner, 'run', interrupted):
      self.assertFalse(train(self.root))
    progress = checkpoints.progress(newest(self.root))
    self.assertEqual((progress['iteration'], progress['collected_iterations']), (1, 2))
    self.assertEqual(progress['num_summed'], 20)
    with mock.patch.object(collector.Collector, 'fill', side_effect=AssertionError('pool')):
      self.assertTrue(train(self.root))
    self.assertEqual([r['iteration'] for r in metrics.read(self.root)], [1, 2, 3])
    self.assertEqual([r['env_steps'] for r in metrics.read(self.root)], [460, 760, 1060])
    self.assertEqual([r['gradient_steps'] for r in metrics.read(self.root)], [40, 80, 120])

  def test_a_damaged_checkpoint_is_named_and_an_older_one_serves(self):
    train(self.root, 'Training.num_iterations = 1')
    saved = newest(self.root)
    data = saved / 'variables.data-00000-of-00001'
    data.write_bytes(data.read_bytes()[:100])
    with self.assertRaisesRegex(checkpoints.CheckpointError, f'{saved.name}.*remove its folder'):
      train(self.root, 'Training.num_iterations = 1')
    checkpoints.shutil.rmtree(saved)
    self.assertTrue(train(self.root, 'Training.num_iterations = 1'))
    self.assertEqual([r['iteration'] for r in metrics.read(self.root)], [1])


if __name__ == '__main__':
  absltest.main()
