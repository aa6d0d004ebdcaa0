import json
import pathlib
import subprocess
import sys

from absl.testing import absltest

from pearl_tf.testing import test_case

ROOT = pathlib.Path(__file__).resolve().parents[2]
SMALL = (
  'sample_task_split.num_train = 2',
  'sample_task_split.num_test = 2',
  'CollectSchedule.initial_steps = 10',
  'CollectSchedule.prior_steps = 10',
  'CollectSchedule.extra_steps = 10',
  'PearlTraining.meta_batch_size = 2',
  'PearlTraining.context_size = 4',
  'PearlTraining.batch_size = 8',
  'Training.max_episode_steps = 5',
  'Training.num_iterations = 10',
  'PearlTraining.steps_per_call = 1',
  'MetaTest.steps_per_repeat = 10',
)


def run_program(*arguments: str) -> subprocess.CompletedProcess:
  return subprocess.run(
    [sys.executable, '-m', 'trainers.benchmark', *arguments],
    cwd=ROOT,
    capture_output=True,
    text=True,
    timeout=280,
    check=False,
  )


class BenchmarkTest(test_case.TestCase):
  def test_table_then_json_lines(self):
    result = run_program(
      '--gin_file=trainers/configs/point_robot.gin',
      *(f'--gin_bindings={binding}' for binding in SMALL),
      '--seconds=0.001',
      '--min_rounds=1',
      '--replay_transitions=1',
      '--num_environments=2',
    )
    self.assertEqual(result.returncode, 0, result.stderr)
    table, brace, lines = result.stdout.partition('{')
    records = [json.loads(line) for line in (brace + lines).splitlines()]
    self.assertContainsSubset(
      ['machine', 'gradient_step', 'collection', 'memory', 'floor'],
      [record['part'] for record in records],
    )
    self.assertIn('pearl/PointRobot-v0', table)
    self.assertIn('share of the floor reached', table)
    self.assertIn(f'part {len(records)} of {len(records)}, floor', result.stderr)

  def test_help_shows_an_example_and_the_flags(self):
    result = run_program('--help')
    self.assertEqual(result.returncode, 0)
    self.assertIn('python -m trainers.benchmark --gin_file=', result.stdout)
    for name in ('gin_bindings', 'seconds', 'replay_transitions', 'output'):
      self.assertIn(f'--{name}', result.stdout.replace('--[no]', '--'))

  def test_wrong_arguments_are_named(self):
    for argument, message in (
      ('cheetah', "unexpected arguments ['cheetah']"),
      ('--seconds=0', 'seconds'),
    ):
      with self.subTest(argument):
        result = run_program(argument)
        self.assertEqual(result.returncode, 2, result.stderr)
        self.assertIn(message, result.stderr)


if __name__ == '__main__':
  absltest.main()
