"""Another method than PEARL through the same loop: on-policy, chosen by gin, without a replay."""

import contextlib
import io
import os
import signal

import gin
import numpy as np
import tensorflow as tf
from absl.testing import absltest

from pearl_tf.collect import collector, rollout, schedule, trial
from pearl_tf.data import seeds
from pearl_tf.experiment import checkpoints, config, local_loop, metrics, run_exporter, trained
from pearl_tf.testing import fakes, test_case


class CountingAgent(tf.Module):
  """Learns one number: the sum of the returns it has seen."""

  def __init__(self):
    super().__init__()
    self.train_step_counter = tf.Variable(0, dtype=tf.int64, trainable=False)
    self.total = tf.Variable(0.0)


class CountingProcess:
  """Collects an episode a task and learns from it once; nothing of it is kept."""

  keeps_data = False
  steps_per_iteration = 2
  steps_per_call = 2
  expected_env_steps = 45

  def __init__(self, agent, actor, run):
    self._agent, self._run = agent, run
    self._rollout = rollout.Rollout(run.environments(2), actor)
    self.returns = []

  def prepare(self):
    return collector.Collected(0, {})

  def collect(self, iteration):
    phase = schedule.Phase('own', 5, num_prior_episodes=None, in_context=True)
    self.returns = []
    env_steps = self._rollout.run(
      [trial.Trial(task, [phase]) for task in self._run.train_tasks],
      seed=seeds.sequence(self._run.seed, seeds.Stream.COLLECT, iteration),
      on_episode=lambda finished: self.returns.append(finished.episode.reward.sum()),
    )
    return collector.Collected(env_steps, {'own': float(np.mean(self.returns))})

  def train(self, num_steps):
    self._agent.total.assign_add(float(np.sum(self.returns)))
    self._agent.train_step_counter.assign_add(num_steps)
    return {'total': num_steps * float(self._agent.total)}

  def variables(self):
    return {}

  def state(self):
    return {}

  def restore(self, state):
    assert not state

  def close(self):
    pass


@gin.configurable
class CountingBuilder:
  name = 'Counting'
  not_served = 'it has no networks'
  not_distributed = 'it keeps nothing'

  def check(self, agent, run):
    pass

  def make_agent(self, domain, *, seed):
    del domain, seed
    return CountingAgent()

  def check_evaluation(self, agent, context_sampling):
    pass

  def make_actor(self, domain, agent, *, deterministic):
    del domain, agent, deterministic
    return fakes.ScriptedActing()

  def make_process(self, agent, run):
    return CountingProcess(agent, self.make_actor(run.domain, agent, deterministic=False), run)


BINDINGS = (
  f'Experiment.method = @{CountingBuilder.__name__}',
  "registry.make.name = 'pearl_tf.testing.fakes:Line'",
  'sample_task_split.num_train = 3',
  'Training.max_episode_steps = 5',
  'Training.num_iterations = 3',
)


def train(root, *bindings) -> bool:
  return local_loop.train(root, gin_files=[], gin_bindings=(*BINDINGS, *bindings), seed=1)


def timeless(root) -> list[dict]:
  return [
    {name: value for name, value in record.items() if not name.startswith('time/')}
    for record in metrics.read(root)
  ]


class MethodTest(test_case.TestCase):
  def test_an_interrupted_iteration_is_collected_again(self):
    alone, stopped = self.temp_dir() / 'alone', self.temp_dir() / 'stopped'
    self.assertTrue(train(alone))
    original = CountingProcess.collect

    def interrupted(self, iteration):
      if iteration == 1:
        os.kill(os.getpid(), signal.SIGTERM)
      return original(self, iteration)

    with absltest.mock.patch.object(CountingProcess, 'collect', interrupted):
      self.assertFalse(train(stopped))
    (*_, newest) = checkpoints.Checkpoints(stopped / 'checkpoints', prefix='latest').all()
    progress = checkpoints.progress(newest)
    self.assertEqual((progress['collected_iterations'], progress['env_steps']), (1, 15))
    self.assertTrue(train(stopped))
    self.assertEqual(timeless(stopped), timeless(alone))
    self.assertEqual([r['env_steps'] for r in timeless(alone)], [15, 30, 45])
    self.assertEqual([r['gradient_steps'] for r in timeless(alone)], [2, 4, 6])

  def test_what_cannot_be_served_is_said(self):
    root = self.temp_dir()
    output = io.StringIO()
    with contextlib.redirect_stdout(output):
      train(root, 'Training.num_iterations = 1')
    self.assertIn('nothing is exported: it has no networks', output.getvalue())
    self.assertFalse((root / 'export').exists())
    builder, _ = trained.restore(root)
    with self.assertRaisesRegex(config.ConfigError, 'Counting cannot be exported: it has no'):
      run_exporter.RunExporter(builder, root, keep=1)

  def test_settings_of_another_method_are_refused(self):
    with self.assertRaisesRegex(config.ConfigError, 'reads PearlTraining.batch_size:'):
      train(self.temp_dir(), 'PearlTraining.batch_size = 3')
    with self.assertRaisesRegex(config.ConfigError, 'reads PearlAgent.gamma:'):
      train(self.temp_dir(), 'PearlAgent.gamma = 0.5')

  def test_the_tasks_of_a_shipped_file_serve_any_method(self):
    experiment = local_loop.experiment_lib.load(['tasks/point_robot.gin'], BINDINGS[:1])
    self.assertIsInstance(experiment.method, CountingBuilder)
    self.assertEqual(experiment.training.max_episode_steps, 20)


if __name__ == '__main__':
  absltest.main()
