import json
import pathlib

from absl.testing import absltest

from pearl_tf.testing import test_case
from trainers import results

ROOT = pathlib.Path(__file__).resolve().parents[2] / 'docs' / 'results'


class ResultsTest(test_case.TestCase):
  def test_the_committed_page_follows_from_the_committed_data(self):
    found = results.load(ROOT)
    self.assertEqual((ROOT / 'README.md').read_text(), results.page(ROOT, found))
    for result in found:
      is_drawn = 'study' not in result.about
      self.assertEqual((ROOT / f'{result.name}.png').is_file(), is_drawn, result.name)
      for lines in result.seeds.values():
        for line in lines:
          self.assertContainsSubset({'env_steps', 'hours', 'test/final_return'}, set(line))

  def test_a_number_that_changes_changes_the_page(self):
    root = self.temp_dir()
    folder = root / 'data' / 'some'
    folder.mkdir(parents=True)
    about = {'order': 1, 'title': 'some', 'command': 'python', 'note': 'words'}
    (folder / 'about.json').write_text(json.dumps(about))
    lines = [
      {
        'env_steps': 10_000 * k,
        'gradient_steps': k,
        'hours': 0.1 * k,
        'test/final_return': float(k),
      }
      for k in range(1, 8)
    ]
    (folder / 'seed3.jsonl').write_text('\n'.join(map(json.dumps, lines)))
    self.assertIn(
      '| some | 3 | 70k | 0.70 | **5.0** | 5.0 | - |', results.page(root, results.load(root))
    )
    lines[-1]['test/final_return'] = 12.0
    (folder / 'seed3.jsonl').write_text('\n'.join(map(json.dumps, lines)))
    self.assertIn('| **6.0** | 6.0 |', results.page(root, results.load(root)))

  def test_trials_of_the_study_are_no_results(self):
    root = self.temp_dir()
    folder = root / 'data' / 'some'
    folder.mkdir(parents=True)
    about = {'order': 1, 'title': 'some', 'command': 'python', 'study': 'twice the steps'}
    (folder / 'about.json').write_text(json.dumps(about))
    lines = [{'env_steps': 1000 * k, 'test/final_return': float(k)} for k in range(1, 8)]
    (folder / 'seed3.jsonl').write_text('\n'.join(map(json.dumps, lines)))
    page = results.page(root, results.load(root))
    self.assertIn('| some | twice the steps | 3 | 7k | 5.0 | 5.0 | - | - |', page)
    self.assertNotIn('## some', page)

  def test_means_start_at_the_fifth(self):
    self.assertEqual(results.trailing_means([1, 2, 3, 4]), [])
    self.assertEqual(results.trailing_means([1, 2, 3, 4, 5, 11]), [3, 5])


if __name__ == '__main__':
  absltest.main()
