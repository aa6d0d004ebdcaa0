import json
import pathlib

import numpy as np
from absl.testing import absltest

from pearl_tf.evaluation import sample_efficiency
from pearl_tf.testing import test_case
from trainers import sample_efficiency as program


def lines(env_steps, returns):
  return [
    {'env_steps': int(steps), 'hours': 2.0, 'test/final_return': float(value)}
    for steps, value in zip(env_steps, returns, strict=True)
  ]


def keep(root: pathlib.Path, name: str, env_steps, returns, seed: int = 0) -> None:
  path = root / 'data' / name / f'seed{seed}.jsonl'
  path.parent.mkdir(parents=True, exist_ok=True)
  path.write_text(''.join(json.dumps(line) + '\n' for line in lines(env_steps, returns)))


class SampleEfficiencyTest(test_case.TestCase):
  def compare(self, theirs, ours):
    return sample_efficiency.compare(
      [sample_efficiency.curve(lines(*theirs))], [sample_efficiency.curve(lines(*ours))]
    )

  def test_steps_to_the_same_level(self):
    # Both jump to 100: the trailing mean of five passes 95 with the fifth such evaluation.
    theirs = (np.arange(1, 41) * 1000, [0] * 20 + [100] * 20)
    ours = (np.arange(1, 41) * 10, [0] * 10 + [100] * 30)
    found = self.compare(theirs, ours)
    self.assertEqual(found['level'], 95)
    self.assertEqual(found['baseline_env_steps'], [24_000, 25_000])
    self.assertEqual(found['pearl_env_steps'], [140, 150])
    self.assertAlmostEqual(found['ratio'], 25_000 / 150)
    self.assertAlmostEqual(found['ratio_low'], 24_000 / 150)
    self.assertAlmostEqual(found['ratio_high'], 25_000 / 140)
    self.assertEqual((found['bound'], found['still_rising']), ('between', False))
    self.assertIsNone(found['ratio_at_least'])

  def test_what_the_baseline_never_reaches_is_a_bound(self):
    theirs = (np.arange(1, 41) * 1000, np.arange(40))
    ours = (np.arange(1, 41) * 10, [500] * 40)
    found = self.compare(theirs, ours)
    self.assertTrue(found['still_rising'])
    self.assertEqual(found['pearl_level'], 500)
    self.assertEqual(found['ratio_at_least'], 40_000 / 50)

  def test_a_level_that_not_all_seeds_of_the_baseline_reach_is_a_bound(self):
    jumps = sample_efficiency.curve(lines(np.arange(1, 41) * 1000, [0] * 20 + [100] * 20))
    stays = sample_efficiency.curve(lines(np.arange(1, 23) * 1000, [60] * 22))
    ours = [sample_efficiency.curve(lines(np.arange(1, 41) * 10, [0] * 10 + [100] * 30))]
    # 0.95 of 80, between the evaluations at 23,000 and 24,000.
    found = sample_efficiency.compare([jumps, jumps], ours)
    self.assertEqual(found['bound'], 'between')
    found = sample_efficiency.compare([jumps, stays], ours)
    self.assertEqual((found['level'], found['bound'], found['ratio']), (76, '>', None))
    self.assertIsNone(found['baseline_env_steps'])
    self.assertAlmostEqual(found['ratio_low'], 22_000 / 140)  # The budget of the other one.
    self.assertIn('at least 157.1', program.table({'cheetah_dir': {'PEARL': {'maml': found}}}))

  def test_what_pearl_has_not_reached_is_a_bound_the_other_way(self):
    found = self.compare((np.arange(1, 11) * 1000, [9] * 10), (np.arange(1, 11) * 10, [1] * 10))
    self.assertIsNone(found['pearl_env_steps'])
    self.assertEqual((found['bound'], found['ratio']), ('<', 5000 / 100))

  def test_a_single_high_evaluation_is_no_level(self):
    found = self.compare(
      (np.arange(1, 11) * 1000, [0] * 5 + [100] + [0] * 4), (np.arange(1, 11) * 10, [50] * 10)
    )
    self.assertEqual(found['level'], 0.95 * 20)

  def test_a_share_of_a_negative_return_is_of_what_was_gained(self):
    returns = [-20] * 5 + [-10] * 5
    found = self.compare((np.arange(1, 11) * 1000, returns), (np.arange(1, 11) * 10, returns))
    self.assertAlmostEqual(found['level'], -10.5)

  def test_too_few_evaluations_are_refused(self):
    with self.assertRaisesRegex(ValueError, '4 evaluations'):
      sample_efficiency.curve(lines(range(4), range(4)))

  def test_the_program_compares_what_there_is(self):
    root = self.temp_dir()
    steps = np.arange(1, 11) * 100
    keep(root, 'cheetah_dir', steps, [50] * 10)
    with self.assertRaisesRegex(FileNotFoundError, 'for no domain'):
      program.compare(root)
    for seed in range(2):
      keep(root, 'cheetah_dir_promp', 50 * steps, [10] * 10, seed)
    keep(root, 'ant_dir_maml', steps, [10] * 10)  # Without PEARL.
    report = program.compare(root, draw=True)
    self.assertGreater((root / 'cheetah_dir_sample_efficiency.png').stat().st_size, 0)
    self.assertEqual(list(report), ['cheetah_dir'])
    row = report['cheetah_dir']['PEARL']['promp']
    self.assertEqual(row['seeds'], [2, 1])
    self.assertIn(
      '| cheetah_dir | PEARL | ProMP | 10 | 25,000 (2.00) | 500 (2.00) | 50.0',
      program.table(report),
    )

  def test_the_claim_needs_a_ratio_and_seeds_enough(self):
    row = {'bound': 'between', 'ratio_low': 20.0, 'seeds': [1, 3]}
    found = {
      'ant_dir': {'PEARL': {'promp': row | {'ratio_low': 19.9}}},
      'cheetah_dir': {'PEARL': {'promp': row, 'rl2': row | {'seeds': [3, 2]}}},
      'cheetah_vel': {'PEARL': {'maml': row | {'bound': '<'}}},
    }
    text = program.claim(found)
    self.assertIn('against ProMP on cheetah_dir.', text)
    self.assertEndsWith(text, 'ProMP on ant_dir, RL2 on cheetah_dir, MAML on cheetah_vel.')

  def test_file_and_readme_follow_from_the_data(self):
    root = pathlib.Path(__file__).resolve().parents[2]
    report = program.compare(root / 'docs' / 'results')
    kept = json.loads((root / 'docs' / 'results' / 'sample_efficiency.json').read_text())
    self.assertEqual(kept, json.loads(json.dumps(report)))
    readme = (root / 'README.md').read_text()
    self.assertEqual(program.with_table(readme, report), readme)

  def test_a_page_without_a_place_is_refused(self):
    with self.assertRaisesRegex(ValueError, 'marks no place'):
      program.with_table('# Page', {})


if __name__ == '__main__':
  absltest.main()
