import io
import json
import os
import pathlib
from unittest import mock

import numpy as np
import tensorflow as tf
from absl.testing import absltest, parameterized
from gymnasium.envs.mujoco import hopper_v5
from rich import console

from pearl_tf.data import specs
from pearl_tf.experiment import builder as builder_lib
from pearl_tf.experiment import experiment as experiment_lib
from pearl_tf.experiment.benchmark import (
  environments,
  learning,
  report,
  suite,
)
from pearl_tf.networks import critic
from pearl_tf.testing import meta_batches, test_case

EPISODE_STEPS = 5
BINDINGS = (
  "registry.make.name = 'pearl/PointRobot-v0'",
  'sample_task_split.num_train = 3',
  'sample_task_split.num_test = 2',
  'CollectSchedule.initial_steps = 20',
  'CollectSchedule.tasks_per_iteration = 2',
  'CollectSchedule.prior_steps = 10',
  'CollectSchedule.extra_steps = 10',
  'Training.num_iterations = 4',
  'PearlTraining.gradient_steps_per_iteration = 2',
  'PearlTraining.meta_batch_size = 2',
  'PearlTraining.context_size = 4',
  'PearlTraining.batch_size = 8',
  f'Training.max_episode_steps = {EPISODE_STEPS}',
  'Training.num_environments = 4',
  'PearlTraining.replay_capacity = 2000',
  'PearlTraining.steps_per_call = 2',
  'MetaTest.num_repeats = 1',
  'MetaTest.steps_per_repeat = 10',
  'GaussianEncoder.hidden_units = (6, 7)',
  'LatentActor.hidden_units = (8, 9)',
  'LatentCritic.hidden_units = (10, 11)',
)
WITH_VALUE = 'LatentValue.hidden_units = (12, 13)'
WITH_TARGET_CRITICS = 'PearlAgent.target_class = @CriticTarget'


def make_builder(*bindings: str) -> builder_lib.Builder:
  return builder_lib.Builder(experiment_lib.load([], [*BINDINGS, *(bindings or [WITH_VALUE])]))


class LearningTest(test_case.TestCase):
  @parameterized.parameters(WITH_VALUE, WITH_TARGET_CRITICS)
  def test_count_is_that_of_the_products_of_a_step(self, target):
    builder = make_builder(target)
    agent, domain = builder.agent, builder.domain
    batch = meta_batches.random_meta_batch(domain, num_tasks=3, num_context=5, batch_size=7)
    batch = tf.nest.map_structure(tf.constant, batch)
    step = tf.function(lambda: agent.train(batch)).get_concrete_function()

    def products(network):
      return sum(v.shape.num_elements() for v in network.variables if v.shape.rank == 2)

    def inputs(network):
      return network.variables[0].shape.num_elements()

    critics = agent.critics
    # Forward, back to the kernels, and back to the inputs of every layer but the first.
    expected = 15 * (3 * products(agent.encoder) - inputs(agent.encoder))
    expected += 21 * (3 * products(agent.actor) - inputs(agent.actor))
    # At the stored actions with all ways back, at the actor's without the one to the kernels.
    expected += 21 * sum((3 + 2) * products(q) for q in critics)
    if target == WITH_VALUE:
      (value,) = [m for m in agent.target.submodules if isinstance(m, critic.LatentValue)][:1]
      expected += 21 * (4 * products(value) - inputs(value))
    else:
      expected += 21 * (products(agent.actor) + sum(map(products, critics)))
    self.assertEqual(learning.matmul_operations(step), 2 * expected)

  def test_product_counts_its_operations(self):
    self.assertEqual(learning.product(6, 4, 3)(), 8 * 2 * 6 * 4 * 3)

  def test_fixed_batch_ignores_the_seed(self):
    batch = meta_batches.random_meta_batch(
      specs.DomainSpec(2, 2), num_tasks=2, num_context=3, batch_size=4
    )
    sampler = learning.FixedBatch(batch)
    sampler.check_ready()
    self.assertIs(sampler.sample(tf.constant([1, 2])), sampler.sample(tf.constant([3, 4])))


class EnvironmentsTest(test_case.TestCase):
  @parameterized.parameters('bare', 'adapter')
  def test_alone_takes_whole_episodes(self, name):
    builder = make_builder()
    environment = builder.environments(1)[0].gymnasium_env
    activity = environments.environment_alone(builder)[name]
    with (
      mock.patch.object(environment, 'step', wraps=environment.step) as step,
      mock.patch.object(environment, 'reset', wraps=environment.reset) as reset,
    ):
      self.assertEqual(activity(), 5 * EPISODE_STEPS)
    self.assertEqual(step.call_count, 5 * EPISODE_STEPS)
    self.assertEqual(reset.call_count, 5)

  def test_both_send_the_same_actions(self):
    builder = make_builder()
    environment = builder.environments(1)[0].gymnasium_env
    sent = {}
    for name, activity in environments.environment_alone(builder).items():
      with mock.patch.object(environment, 'step', wraps=environment.step) as step:
        activity()
      sent[name] = [call.args[0] for call in step.call_args_list]
    self.assertCountEqual(sent, ['bare', 'adapter'])  # Not built on an environment of gymnasium.
    self.assertAllClose(sent['bare'], sent['adapter'])

  def test_mujoco_domains_are_timed_beside_the_environment_they_are_built_on(self):
    builder = make_builder("registry.make.name = 'pearl/HopperRandParams-v0'")
    activities = environments.environment_alone(builder)
    with mock.patch.object(hopper_v5.HopperEnv, 'step', autospec=True) as step:
      step.return_value = (np.zeros(11), 0.0, False, False, {})
      self.assertEqual(activities['gymnasium'](), 5 * EPISODE_STEPS)
    self.assertEqual(step.call_count, 5 * EPISODE_STEPS)
    for call in step.call_args_list:
      self.assertIs(type(call.args[0]), hopper_v5.HopperEnv)


class SuiteTest(test_case.TestCase):
  def test_every_task_is_filled_alike(self):
    builder = make_builder()
    process = builder.make_process()
    self.addCleanup(process.close)
    record = suite.fill(builder, process, num_transitions=3 * EPISODE_STEPS + 1)
    self.assertEqual(record['transitions'], 2 * 3 * EPISODE_STEPS)
    for task in range(3):
      self.assertEqual(process.replay.cache.num_transitions(task), 2 * EPISODE_STEPS)
      self.assertEqual(process.replay.cache.num_context_transitions(task), 2 * EPISODE_STEPS)

  def test_machine(self):
    described = suite.describe_machine()
    self.assertEqual(described['cores'], len(os.sched_getaffinity(0)))
    self.assertEqual(described['tensorflow'], tf.__version__)
    self.assertNotEmpty(described['cpu'])
    self.assertIn(described['cpu'], pathlib.Path('/proc/cpuinfo').read_text())

  def test_whole_benchmark(self):
    builder = make_builder()
    said = []
    records = suite.run(
      builder,
      seconds=0.001,
      min_rounds=2,
      replay_transitions=1,
      num_environments=3,
      announce=said.append,
    )
    parts = {record['part']: record for record in records}
    step, floor, collection = parts['gradient_step'], parts['floor'], parts['collection']
    # Two learners, each once untimed and twice timed.
    self.assertEqual(int(builder.agent.train_step_counter), 2 * 3 * 2)
    self.assertEqual((step['repeats'], step['steps_per_repeat']), (2, 2))
    self.assertBetween(step['ms_min'], 0.01, step['ms'])
    self.assertBetween(step['fixed_batch_ms_min'], 0.01, step['fixed_batch_ms'])
    self.assertEqual(floor['matmul_shape'], [2 * 8, 12, 13])
    expected = 1000 * floor['gflop'] / floor['gflop_per_second']
    self.assertAlmostEqual(floor['floor_ms'], expected)
    self.assertAlmostEqual(floor['share_of_floor'], expected / step['ms'])
    self.assertEqual(collection['num_environments'], 3)
    self.assertEqual(collection['iteration_tasks'], 2)
    self.assertEqual(collection['iteration_env_steps'], 2 * (10 + 10))
    for name in ('bare', 'adapter', 'rollout', 'collection', 'iteration'):
      self.assertGreater(collection[f'{name}_steps_per_second'], 0)
    self.assertGreater(parts['memory']['peak_gib'], 0.1)
    self.assertLen(said, 2 * len(records))
    self.assertEqual(said[0], f'part 1 of {len(records)}, machine ...')
    self._check_report(records)

  def _check_report(self, records):
    self.assertEqual(json.loads(json.dumps(records, allow_nan=False)), records)
    shown = console.Console(width=160, record=True, file=io.StringIO())
    shown.print(report.format_table(records))
    text = shown.export_text()
    self.assertIn('pearl/PointRobot-v0: 2 tasks x 8 transitions + 2 x 4 context', text)
    step, collection = records[3], records[4]
    self.assertRegex(text, rf'gradient step +{step["ms"]:.2f} ms')
    self.assertRegex(text, rf'collection +{collection["collection_steps_per_second"]:,.0f} steps/s')
    self.assertRegex(text, r'peak memory .* at 15 transitions of noise')

  @parameterized.parameters('seconds', 'replay_transitions', 'num_environments', 'min_rounds')
  def test_impossible_number_is_named(self, name):
    with self.assertRaisesRegex(ValueError, f'{name} must be positive, got 0'):
      suite.run(make_builder(), **{name: 0})


if __name__ == '__main__':
  absltest.main()
