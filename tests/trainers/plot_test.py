import pathlib
import subprocess
import sys

from absl.testing import absltest, parameterized
from PIL import Image

from pearl_tf.experiment import metrics
from pearl_tf.testing import test_case
from trainers import plot


def _make_run(run_dir: pathlib.Path, *, evaluated: bool = True) -> str:
  with metrics.MetricsWriter(run_dir) as writer:
    for iteration in range(4):
      values = {'time/total_hours': 0.1 * iteration, 'loss/critic': 1.0}
      if evaluated:
        values['test/final_return'] = -280.0 + 50 * iteration
        values['train/final_return'] = -260.0 + 50 * iteration
      writer.write(
        values, iteration=iteration, env_steps=200_000 + 5000 * iteration, gradient_steps=iteration
      )
  return str(run_dir)


class PlotTest(test_case.TestCase):
  def test_default_output_is_in_the_first_run(self):
    folder = self.temp_dir()
    first, second = _make_run(folder / 'vel-0'), _make_run(folder / 'vel-1')
    output = plot.plot([first, f'{second}/metrics.jsonl'], reference='cheetah-vel')
    self.assertEqual(output, folder / 'vel-0' / 'figures' / 'learning_curve.png')
    with Image.open(output) as image:
      self.assertEqual(image.format, 'PNG')

  def test_default_labels_merge_seeds_and_nothing_else(self):
    folder = self.temp_dir()
    for name, text in (('vel-0', 'a = 1'), ('vel-1', 'a = 1'), ('sac', 'a = 2')):
      (folder / name).mkdir()
      (folder / name / 'config.gin').write_text(text)
    runs = [str(folder / name) for name in ('vel-0', 'vel-1', 'sac')]
    self.assertEqual(plot.default_labels(runs), ['vel-0', 'vel-0', 'sac'])
    files = [f'{folder}/{name}.jsonl' for name in ('a', 'b')]
    self.assertEqual(plot.default_labels(files), ['a', 'b'])
    files = [f'{folder}/{name}/metrics.jsonl' for name in ('x/run', 'y/run')]
    self.assertEqual(plot.default_labels(files), ['x/run', 'y/run'])
    self.assertEqual(plot.default_labels(files[:1] * 2), ['run', 'run'])

  def test_metrics_file_alone_is_a_run(self):
    run = _make_run(self.temp_dir() / 'run')
    plot.plot([f'{run}/metrics.jsonl'])
    self.assertTrue((pathlib.Path(run) / 'figures' / 'learning_curve.png').is_file())

  def test_missing_run_is_named(self):
    with self.assertRaisesRegex(FileNotFoundError, 'no metrics at .*/none.* give a run folder'):
      plot.plot([str(self.temp_dir() / 'none')])

  def test_unknown_reference_lists_the_known(self):
    run = _make_run(self.temp_dir() / 'run')
    message = "'cheetah'; available are ant-dir, cheetah-dir, cheetah-vel"
    with self.assertRaisesRegex(ValueError, message):
      plot.plot([run], reference='cheetah')

  def test_run_that_never_evaluated_is_named(self):
    run = _make_run(self.temp_dir() / 'young', evaluated=False)
    with self.assertRaisesRegex(ValueError, 'young: none of its 4 lines .* not evaluated yet'):
      plot.plot([run])

  def test_labels_must_match_the_runs(self):
    run = _make_run(self.temp_dir() / 'run')
    with self.assertRaisesRegex(ValueError, r'2 labels \(a, b\) for 1 runs'):
      plot.plot([run], labels=['a', 'b'])


class ProgramTest(test_case.TestCase):
  def test_options_reach_the_figure(self):
    folder = self.temp_dir()
    run = _make_run(folder / 'run')
    output = folder / 'elsewhere' / 'curve.png'
    done = _run_program(
      run,
      run,
      '--reference=cheetah-vel',
      f'--output={output}',
      '--labels=PEARL,PEARL',
      '--metric=train/final_return',
      '--title=cheetah-vel',
      '--full_reference',
    )
    self.assertEqual(done.stdout, f'wrote {output}\n', done.stderr)
    self.assertEqual(done.returncode, 0)
    self.assertTrue(output.is_file())
    self.assertFalse((folder / 'run' / 'figures').exists())

  @parameterized.parameters(
    (['--help'], 0, 'python -m trainers.plot RUN'),
    ([], 2, 'error: name at least one run folder'),
    (['no-such-run'], 1, 'error: no metrics at no-such-run; give a run folder'),
  )
  def test_user_is_told_without_a_traceback(self, arguments, code, expected):
    done = _run_program(*arguments)
    self.assertEqual(done.returncode, code)
    self.assertIn(expected, done.stdout + done.stderr)
    self.assertNotIn('Traceback', done.stderr)


def _run_program(*arguments: str) -> subprocess.CompletedProcess:
  return subprocess.run(
    [sys.executable, '-m', 'trainers.plot', *arguments],
    capture_output=True,
    text=True,
    check=False,
    cwd=pathlib.Path(plot.__file__).parents[1],
  )


if __name__ == '__main__':
  absltest.main()
