import io
import json
import math
from unittest import mock

import numpy as np
import tensorflow as tf
from absl.testing import absltest, parameterized
from gymnasium.envs.mujoco import hopper_v5
from rich import console

from pearl_tf.agents.pearl import agent as pearl_agent
from pearl_tf.agents.pearl import targets
from pearl_tf.data import specs
from pearl_tf.experiment import builder as builder_lib
from pearl_tf.experiment import config
from pearl_tf.experiment import experiment as experiment_lib
from pearl_tf.experiment.benchmark import (
  environments,
  flops,
  learning,
  report,
  storage,
  suite,
)
from pearl_tf.networks import layers
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
# An episode for each of 3 tasks, 17 times: the first multiple of the tasks from 50 on.
TRANSITIONS_PER_ROUND = 51 * EPISODE_STEPS


def make_builder(*bindings: str) -> builder_lib.Builder:
  return builder_lib.Builder(experiment_lib.load([], [*BINDINGS, *(bindings or [WITH_VALUE])]))


def make_agent(observation_size: int, action_size: int) -> pearl_agent.PearlAgent:
  counter = tf.Variable(0, dtype=tf.int64)
  domain = specs.DomainSpec(observation_size, action_size)
  return pearl_agent.PearlAgent(domain, train_step_counter=counter, seed=0)


def matmul_operations(function: tf.types.experimental.ConcreteFunction) -> int:
  """Counts multiplications and additions of the matrix products that a graph would execute."""
  waiting = [tensor.op for tensor in function.graph.outputs] + list(function.graph.control_outputs)
  seen, total = set(), 0
  while waiting:
    operation = waiting.pop()
    if operation in seen:
      continue
    seen.add(operation)
    waiting += [tensor.op for tensor in operation.inputs] + list(operation.control_inputs)
    if 'MatMul' in operation.type:
      left = operation.inputs[0].shape.as_list()
      result = operation.outputs[0].shape.as_list()
      transposed = operation.get_attr('transpose_a')
      total += 2 * math.prod(result) * (left[-2] if transposed else left[-1])
  return total


class FlopsTest(test_case.TestCase):
  @parameterized.named_parameters(
    ('cheetah_vel', 20, 6, {'meta_batch_size': 16, 'context_size': 100}, 26.8),
    ('cheetah_dir', 20, 6, {'meta_batch_size': 4, 'context_size': 256}, 7.0),
    ('sparse_point_robot', 2, 2, {'meta_batch_size': 16, 'context_size': 1024}, 33.5),
  )
  def test_paper_domains(self, observation_size, action_size, sizes, expected):
    count = flops.training_step(make_agent(observation_size, action_size), **sizes, batch_size=256)
    self.assertAlmostEqual(count.total / 1e9, expected, delta=0.05)

  @parameterized.parameters(WITH_VALUE, WITH_TARGET_CRITICS)
  def test_count_is_that_of_the_compiled_step_without_its_waste(self, target):
    builder = make_builder(target)
    agent, domain = builder.agent, builder.domain
    batch = meta_batches.random_meta_batch(domain, num_tasks=3, num_context=5, batch_size=7)
    train = tf.function(lambda: agent._train(tf.nest.map_structure(tf.constant, batch)))
    # The gradient of a concatenation reaches all of it; only latent or action needs one.
    wasted_inputs = 2 * domain.observation_size + domain.action_size + agent.encoder.latent_size
    waste = 2 * (3 * 7) * 10 * wasted_inputs * len(agent.critics)
    count = flops.training_step(agent, meta_batch_size=3, context_size=5, batch_size=7)
    self.assertEqual(count.total + waste, matmul_operations(train.get_concrete_function()))

  def test_chain_by_hand(self):
    forward = 2 * 10 * (3 * 4 + 4 * 5)
    backward = 2 * 10 * (4 * 5 + 2 * 4)
    count = flops.chain([3, 4, 5], 10, learned_inputs=2, learns_kernels=True)
    self.assertEqual(count, flops.Flops(forward, backward, forward))
    count = flops.chain([3, 4, 5], 10, learned_inputs=2, learns_kernels=False)
    self.assertEqual(count, flops.Flops(forward, backward, 0))
    count = flops.chain([3, 4, 5], 10, learned_inputs=None, learns_kernels=False)
    self.assertEqual(count, flops.Flops(forward, 0, 0))

  def test_network_that_branches_is_refused(self):
    builder = make_builder()
    with (
      mock.patch.object(
        type(builder.agent.actor), 'variables', [tf.zeros([3, 4]), tf.zeros([5, 2])]
      ),
      self.assertRaisesRegex(ValueError, r'Actor is not a chain .* \[\[3, 4\], \[5, 2\]\]'),
    ):
      flops.layer_widths(builder.agent.actor)

  def test_unknown_target_is_named(self):
    class Own(targets.Target):
      def next_value(self, *args, **kwargs):
        self.fail('counting must not run the agent')

      update = next_value

    builder = make_builder()
    with mock.patch.object(pearl_agent.PearlAgent, 'target', Own()):
      with self.assertRaisesRegex(TypeError, 'Own cannot be counted'):
        flops.training_step(builder.agent, meta_batch_size=1, context_size=1, batch_size=1)
      with self.assertRaisesRegex(config.ConfigError, 'no floor: .* Own'):
        learning.floor(builder, step_ms=1.0, seconds=0.001, min_rounds=1)


class LearningTest(test_case.TestCase):
  def test_products_are_those_of_a_hidden_layer_and_its_gradients(self):
    rows, inputs, outputs = 6, 4, 3
    layer = layers.hidden(outputs, seed=0, name='hidden')
    layer.build([rows, inputs])

    @tf.function
    def forward_and_back(x):
      with tf.GradientTape() as tape:
        tape.watch(x)
        y = layer(x)
      return tape.gradient(y, [x, layer.kernel])

    graph = forward_and_back.get_concrete_function(tf.zeros([rows, inputs])).graph
    expected = {
      (
        tuple(operation.inputs[0].shape),
        tuple(operation.inputs[1].shape),
        operation.get_attr('transpose_a'),
        operation.get_attr('transpose_b'),
      )
      for operation in graph.get_operations()
      if 'MatMul' in operation.type
    }
    with mock.patch.object(tf, 'matmul', wraps=tf.matmul) as matmul:
      for activity in learning.products(rows, inputs, outputs).values():
        self.assertEqual(activity(), 8 * 2 * rows * inputs * outputs)
    traced = {
      (
        tuple(call.args[0].shape),
        tuple(call.args[1].shape),
        call.kwargs.get('transpose_a', False),
        call.kwargs.get('transpose_b', False),
      )
      for call in matmul.call_args_list
    }
    self.assertLen(expected, 3)
    self.assertEqual(traced, expected)

  def test_fixed_batch_ignores_the_seed(self):
    batch = meta_batches.random_meta_batch(
      specs.DomainSpec(2, 2), num_tasks=2, num_context=3, batch_size=4
    )
    sampler = learning.FixedBatch(batch)
    sampler.check_ready()
    self.assertIs(sampler.sample(tf.constant([1, 2])), sampler.sample(tf.constant([3, 4])))


class StorageTest(test_case.TestCase):
  def test_every_task_is_filled_alike(self):
    builder = make_builder()
    process = builder.make_process()
    self.addCleanup(process.close)
    record = storage.fill(builder, process, num_transitions=3 * TRANSITIONS_PER_ROUND - 1)
    self.assertEqual(record['transitions'], 3 * TRANSITIONS_PER_ROUND)
    self.assertEqual(record['transitions_in_cache'], 3 * TRANSITIONS_PER_ROUND)
    self.assertEqual(record['repeats'], 2)
    for task in range(3):
      self.assertEqual(process.replay.cache.num_transitions(task), TRANSITIONS_PER_ROUND)
      self.assertEqual(process.replay.cache.num_context_transitions(task), TRANSITIONS_PER_ROUND)


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
  def test_whole_benchmark(self):
    builder = make_builder()
    scratch = self.temp_dir()
    said = []
    records = suite.Benchmark(
      builder,
      seconds=0.001,
      min_rounds=2,
      replay_transitions=1,
      num_environments=3,
      scratch_directory=str(scratch),
    ).run(said.append)
    parts = {record['part']: record for record in records}
    self._check_learning(parts, builder)
    self._check_environments(parts)
    self._check_storage(parts)
    self._check_projection(parts)
    self.assertEmpty(list(scratch.iterdir()))
    self.assertLen(said, 2 * len(records))
    self.assertEqual(said[0], f'part 1 of {len(records)}, machine ...')
    self._check_report(records)

  def _check_learning(self, parts, builder):
    step, floor = parts['gradient_step'], parts['floor']
    # Two learners, each once untimed and twice timed.
    self.assertEqual(int(builder.agent.train_step_counter), 2 * 3 * 2)
    self.assertEqual((step['repeats'], step['steps_per_repeat']), (2, 2))
    self.assertBetween(step['ms_min'], 0.01, step['ms'])
    self.assertBetween(step['fixed_batch_ms_min'], 0.01, step['fixed_batch_ms'])
    self.assertEqual(floor['matmul_shape'], [2 * 8, 10, 11])
    count = flops.training_step(builder.agent, meta_batch_size=2, context_size=4, batch_size=8)
    self.assertAlmostEqual(floor['gflop'], count.total / 1e9)
    by_product, rates = floor['gflop_by_product'], floor['gflop_per_second']
    self.assertAlmostEqual(sum(by_product.values()), floor['gflop'])
    expected = 1000 * sum(by_product[name] / rates[name] for name in by_product)
    self.assertAlmostEqual(floor['floor_ms'], expected)
    self.assertAlmostEqual(floor['share_of_floor'], expected / step['ms'])
    self.assertLessEqual(floor['floor_ms_at_best'], floor['floor_ms'])

  def _check_environments(self, parts):
    collection, evaluation = parts['collection'], parts['evaluation']
    self.assertEqual(collection['num_environments'], 3)
    self.assertEqual(collection['iteration_tasks'], 2)
    self.assertEqual(collection['iteration_env_steps'], 2 * (10 + 10))
    for name in ('bare', 'adapter', 'rollout', 'collection', 'iteration'):
      self.assertGreater(collection[f'{name}_steps_per_second'], 0)
    self.assertEqual(evaluation['tasks'], 2)
    self.assertEqual(evaluation['num_environments'], 4)
    self.assertEqual(evaluation['env_steps'], 2 * 10)

  def _check_storage(self, parts):
    replay, checkpoint = parts['replay'], parts['checkpoint']
    self.assertEqual(replay['transitions'], 2 * TRANSITIONS_PER_ROUND)
    self.assertGreater(replay['insertion_transitions_per_second'], 0)
    self.assertGreater(replay['drain_transitions_per_second'], 0)
    pool_megabytes = 4 * 2000 * (2 * 2 + 2 + 3) / 1e6
    self.assertGreater(checkpoint['megabytes'], pool_megabytes)
    self.assertGreater(checkpoint['save_seconds'], checkpoint['save_weights_seconds'])
    self.assertGreater(parts['restore']['restore_seconds'], 0)
    self.assertGreater(parts['memory']['peak_gib'], 0.1)

  def _check_projection(self, parts):
    projection = parts['projection']
    self.assertTrue(projection['derived'])
    self.assertEqual(projection['env_steps'], 3 * 20 + 4 * 40)
    self.assertAlmostEqual(sum(projection['percent'].values()), 100)
    self.assertAlmostEqual(sum(projection['hours'].values()), projection['total_hours'])

  def _check_report(self, records):
    lines = report.json_lines(records).splitlines()
    self.assertEqual([json.loads(line) for line in lines], records)
    shown = console.Console(width=160, record=True, file=io.StringIO())
    shown.print(report.format_table(records))
    text = shown.export_text()
    self.assertIn('pearl/PointRobot-v0: 2 tasks x 8 transitions + 2 x 4 context', text)
    step, collection = records[3], records[4]
    self.assertRegex(text, rf'gradient step +{step["ms"]:.2f} ms')
    self.assertRegex(text, rf'collection +{collection["collection_steps_per_second"]:,.0f} steps/s')
    self.assertRegex(text, r'2 test tasks on 4 environments')
    self.assertRegex(text, r'whole run .*\(derived\) 4 iterations, 220 env steps')

  def test_projection_by_hand(self):
    builder = make_builder(
      WITH_VALUE, 'Training.evaluation_interval = 3', 'Training.checkpoint_interval = 3'
    )
    records = {
      'gradient_step': {'ms': 500.0},
      'collection': {
        'iteration_seconds': 0.5,
        'iteration_env_steps': 40,
        'collection_steps_per_second': 30.0,
      },
      'evaluation': {'seconds': 3.0, 'tasks': 2},
      'checkpoint': {'save_seconds': 2.0, 'save_weights_seconds': 0.5},
    }
    projection = suite.project(builder, records)
    seconds = {name: 3600 * hours for name, hours in projection['hours'].items()}
    self.assertAllClose(
      seconds,
      {
        'train': 4 * 2 * 0.5,
        'collect': 4 * 0.5 + 60 / 30,
        'evaluate': 2 * (2 + 2) * 1.5,  # After the third and the last iteration.
        'checkpoint': 3 * 2.0 + 2 * 0.5,
      },
    )
    self.assertAlmostEqual(projection['beside_training_percent'], 100 * 23 / 27)

  @parameterized.parameters('seconds', 'replay_transitions', 'num_environments', 'min_rounds')
  def test_impossible_number_is_named(self, name):
    with self.assertRaisesRegex(ValueError, f'{name} must be positive, got 0'):
      suite.Benchmark(make_builder(), **{name: 0})


if __name__ == '__main__':
  absltest.main()
