import json
import pathlib

from absl.testing import absltest

from pearl_tf.testing import test_case
from trainers import results

ROOT = pathlib.Path(__file__).resolve().parents[2] / 'docs' / 'results'


class ResultsTest(test_case.TestCase):
  def page_of(self, test_returns, **about):
    """Returns the page of one curve of seed 3, an evaluation every 10,000 env steps."""
    root = self.temp_dir()
    folder = root / 'data' / 'some'
    folder.mkdir(parents=True)
    about = {'order': 1, 'title': 'some', 'command': 'python', **about}
    (folder / 'about.json').write_text(json.dumps(about))
    lines = [
      {
        'env_steps': 10_000 * k,
        'gradient_steps': k,
        'hours': 0.1 * k,
        'test/final_return': value,
      }
      for k, value in enumerate(test_returns, start=1)
    ]
    (folder / 'seed3.jsonl').write_text('\n'.join(map(json.dumps, lines)))
    return results.page(root, results.load(root))

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
    returns = [float(k) for k in range(1, 8)]
    page = self.page_of(returns, note='words')
    self.assertIn('| some | 3 | 70k | 0.70 | **5.0** | 5.0 | - |', page)
    page = self.page_of([*returns[:-1], 12.0], note='words')
    self.assertIn('| **6.0** | 6.0 |', page)

  def test_trials_of_the_study_are_no_results(self):
    page = self.page_of([float(k) for k in range(1, 8)], study='twice the steps')
    self.assertIn('| some | twice the steps | 3 | 70k | 5.0 | 5.0 | - | - |', page)
    self.assertNotIn('## some', page)
    page = self.page_of([1.0, 2.0], study='stopped soon')
    self.assertIn('| some | stopped soon | 3 | 20k | - | - | - | - |', page)

  def test_means_start_at_the_fifth(self):
    self.assertEqual(results.trailing_means([1, 2, 3, 4]), [])
    self.assertEqual(results.trailing_means([1, 2, 3, 4, 5, 11]), [3, 5])


if __name__ == '__main__':
  absltest.main()
