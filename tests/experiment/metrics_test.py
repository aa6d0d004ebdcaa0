import json
import math
import pathlib

import numpy as np
import tensorflow as tf
from absl.testing import absltest, parameterized
from tensorboard.backend.event_processing import event_accumulator

from pearl_tf.evaluation import plot_style
from pearl_tf.experiment import metrics
from pearl_tf.testing import test_case


def _write(writer: metrics.MetricsWriter, iteration: int, **more) -> None:
  values = {'loss/critic': 1 / (iteration + 3), 'test/return_by_trajectory': [-10.5, iteration]}
  writer.write(
    {**values, **more},
    iteration=iteration,
    env_steps=1000 * iteration,
    gradient_steps=50 * iteration,
  )


def _tensorboard(run_dir: pathlib.Path) -> dict[str, list[tuple[int, float]]]:
  """Reads the scalars back: (step, value) pairs by name."""
  accumulator = event_accumulator.EventAccumulator(
    str(run_dir / metrics.TENSORBOARD_FOLDER), size_guidance={event_accumulator.TENSORS: 0}
  )
  accumulator.Reload()
  return {
    name: [
      (event.step, float(tf.make_ndarray(event.tensor_proto)))
      for event in accumulator.Tensors(name)
    ]
    for name in accumulator.Tags()['tensors']
  }


def _expected_in_tensorboard(run_dir: pathlib.Path) -> dict[str, list[tuple[int, float]]]:
  expected = {}
  for record in metrics.read(run_dir):
    step = record.pop('env_steps')
    for name, value in record.items():
      # TensorBoard keeps single precision.
      expected.setdefault(name, []).append((step, float(np.float32(value))))
  return expected


class MetricsWriterTest(test_case.TestCase):
  def test_lines_hold_what_was_written(self):
    run_dir = self.temp_dir() / 'new' / 'run'
    with metrics.MetricsWriter(run_dir) as writer:
      _write(writer, 0)
      _write(writer, 1, **{'time/total_hours': np.float32(0.5), 'kl': tf.constant(2.5)})
      self.assertEqual(writer.path, run_dir / 'metrics.jsonl')
    lines = (run_dir / 'metrics.jsonl').read_text().splitlines()
    self.assertEqual(
      [json.loads(line) for line in lines],
      [
        {
          'iteration': 0,
          'env_steps': 0,
          'gradient_steps': 0,
          'loss/critic': 1 / 3,
          'test/return_by_trajectory/0': -10.5,
          'test/return_by_trajectory/1': 0.0,
        },
        {
          'iteration': 1,
          'env_steps': 1000,
          'gradient_steps': 50,
          'loss/critic': 1 / 4,
          'test/return_by_trajectory/0': -10.5,
          'test/return_by_trajectory/1': 1.0,
          'time/total_hours': 0.5,
          'kl': 2.5,
        },
      ],
    )
    self.assertEqual(metrics.read(run_dir), [json.loads(line) for line in lines])

  def test_line_is_on_disk_before_the_file_is_closed(self):
    run_dir = self.temp_dir()
    with metrics.MetricsWriter(run_dir) as writer:
      _write(writer, 0)
      self.assertLen(metrics.read(run_dir), 1)
      self.assertLen(_tensorboard(run_dir)['loss/critic'], 1)

  def test_tensorboard_holds_the_same_values(self):
    run_dir = self.temp_dir()
    with metrics.MetricsWriter(run_dir) as writer:
      for iteration in range(5):
        _write(writer, iteration)
    self.assertEqual(_tensorboard(run_dir), _expected_in_tensorboard(run_dir))
    self.assertEqual(
      [step for step, _ in _tensorboard(run_dir)['loss/critic']], [0, 1000, 2000, 3000, 4000]
    )

  def test_tensorboard_has_texts_and_pictures(self):
    run_dir = self.temp_dir()
    figure = plot_style.new_figure(2, 1)
    with metrics.MetricsWriter(run_dir, texts={'configuration': 'a = 1'}) as writer:
      writer.truncate_after(-1)
      writer.write_figures({'test/picture': figure}, env_steps=1000)
    accumulator = event_accumulator.EventAccumulator(
      str(run_dir / metrics.TENSORBOARD_FOLDER), size_guidance={event_accumulator.TENSORS: 0}
    )
    accumulator.Reload()
    (text,) = accumulator.Tensors('configuration')
    self.assertEqual(text.tensor_proto.string_val, [b'    a = 1'])
    (picture,) = accumulator.Tensors('test/picture')
    self.assertEqual(picture.step, 1000)
    width, height, png = picture.tensor_proto.string_val
    self.assertEqual((width, height), (b'200', b'100'))
    self.assertEqual(tf.io.decode_png(png).shape, (100, 200, 3))

  def test_tensorboard_is_written_whatever_the_learner_records(self):
    run_dir = self.temp_dir()
    with metrics.MetricsWriter(run_dir) as writer, tf.summary.record_if(False):
      _write(writer, 0)
    self.assertIn('loss/critic', _tensorboard(run_dir))

  @parameterized.parameters(math.nan, math.inf, -math.inf)
  def test_value_that_is_not_finite_is_null(self, value):
    run_dir = self.temp_dir()
    with metrics.MetricsWriter(run_dir) as writer:
      _write(writer, 0, bad=value, bad_list=[1.0, value])
    line = (run_dir / 'metrics.jsonl').read_text()
    record = json.loads(line, parse_constant=lambda name: self.fail(f'{name} is not strict JSON'))
    self.assertIsNone(record['bad'])
    self.assertEqual((record['bad_list/0'], record['bad_list/1']), (1.0, None))
    self.assertAllEqual(_tensorboard(run_dir)['bad'], [(0, value)])

  def test_value_that_does_not_exist_is_null_and_no_scalar(self):
    run_dir = self.temp_dir()
    with metrics.MetricsWriter(run_dir) as writer:
      _write(writer, 0, interval=None)
    self.assertIsNone(metrics.read(run_dir)[0]['interval'])
    self.assertNotIn('interval', _tensorboard(run_dir))

  @parameterized.parameters(
    ({'iteration': 1.0}, ValueError, "'iteration' is already taken"),
    ({'a': [1.0], 'a/0': 2.0}, ValueError, "'a/0' is already taken"),
    ({'a': np.zeros((2, 3))}, ValueError, r'shape \(2, 3\)'),
    ({'a': 'high'}, TypeError, "'a' must be a number, got 'high'"),
    ({'a': 1j}, TypeError, "'a' must be a number"),
  )
  def test_impossible_values_are_refused_and_leave_no_trace(self, values, error, message):
    run_dir = self.temp_dir()
    with metrics.MetricsWriter(run_dir) as writer:
      with self.assertRaisesRegex(error, message):
        writer.write(values, iteration=0, env_steps=0, gradient_steps=0)
      _write(writer, 0)
    self.assertLen(metrics.read(run_dir), 1)


class ResumeTest(test_case.TestCase):
  @parameterized.parameters(0, 2, 5)
  def test_resumed_file_is_that_of_the_uninterrupted_run(self, checkpoint):
    whole, interrupted = self.temp_dir(), self.temp_dir()
    with metrics.MetricsWriter(whole) as writer:
      for iteration in range(8):
        _write(writer, iteration)
    with metrics.MetricsWriter(interrupted) as writer:
      for iteration in range(6):
        # What the interrupted process went on to write was different.
        _write(writer, iteration, **({'other': 1.0} if iteration > checkpoint else {}))
    with metrics.MetricsWriter(interrupted) as writer:
      writer.truncate_after(checkpoint)
      for iteration in range(checkpoint + 1, 8):
        _write(writer, iteration)
    self.assertEqual(
      (whole / 'metrics.jsonl').read_bytes(), (interrupted / 'metrics.jsonl').read_bytes()
    )
    self.assertEqual(_tensorboard(interrupted), _expected_in_tensorboard(interrupted))

  @parameterized.parameters(1, 30, -2, -1)
  def test_torn_last_line_is_dropped(self, cut):
    run_dir = self.temp_dir()
    with metrics.MetricsWriter(run_dir) as writer:
      _write(writer, 0)
      _write(writer, 1)
    path = run_dir / 'metrics.jsonl'
    first, second = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(first + second[:cut])
    # Without its newline alone the line is whole, and stays.
    kept = 2 if cut == -1 else 1
    self.assertLen(metrics.read(path), kept)
    with metrics.MetricsWriter(run_dir) as writer:
      _write(writer, 2)
    expected = [0, 1, 2] if kept == 2 else [0, 2]
    self.assertEqual([record['iteration'] for record in metrics.read(path)], expected)
    self.assertTrue(path.read_bytes().startswith(first + second[: 0 if kept == 1 else None]))

  def test_truncation_forgets_a_torn_line(self):
    run_dir = self.temp_dir()
    with metrics.MetricsWriter(run_dir) as writer:
      for iteration in range(3):
        _write(writer, iteration)
    path = run_dir / 'metrics.jsonl'
    whole = path.read_bytes()
    path.write_bytes(whole + b'{"iteration": 3, "env')
    with metrics.MetricsWriter(run_dir) as writer:
      writer.truncate_after(2)
    self.assertEqual(path.read_bytes(), whole)

  def test_truncation_of_a_new_run_is_nothing(self):
    run_dir = self.temp_dir()
    with metrics.MetricsWriter(run_dir) as writer:
      writer.truncate_after(10)
      _write(writer, 0)
      writer.truncate_after(-1)
    self.assertEmpty(metrics.read(run_dir))
    self.assertEmpty(_tensorboard(run_dir))

  def test_no_temporary_file_is_left(self):
    run_dir = self.temp_dir()
    with metrics.MetricsWriter(run_dir) as writer:
      _write(writer, 0)
      writer.truncate_after(-1)
    self.assertCountEqual(
      [path.name for path in run_dir.iterdir()], ['metrics.jsonl', 'tensorboard']
    )


class ReadTest(test_case.TestCase):
  def test_missing_file(self):
    run_dir = self.temp_dir()
    for path in (run_dir, run_dir / 'none.jsonl'):
      with self.assertRaisesRegex(FileNotFoundError, 'give a run folder or its metrics.jsonl'):
        metrics.read(path)

  @parameterized.parameters('{"iteration": 1,', '[1, 2]', '{"loss": 1}', '')
  def test_damage_before_the_last_line_is_refused(self, damaged):
    path = self.temp_dir() / 'metrics.jsonl'
    path.write_text(f'{{"iteration": 0}}\n{damaged}\n{{"iteration": 2}}\n')
    with self.assertRaisesRegex(ValueError, 'line 2, is damaged'):
      metrics.read(path)

  def test_a_damaged_file_does_not_keep_a_run_from_going_on(self):
    run_dir = self.temp_dir()
    (run_dir / 'metrics.jsonl').write_text('{"iter\n{"iteration": 1}\n')
    with metrics.MetricsWriter(run_dir) as writer:
      writer.write({'loss': 1.0}, iteration=2, env_steps=2, gradient_steps=2)
    self.assertEqual([record['iteration'] for record in metrics.read(run_dir)], [1, 2])
    self.assertIn('{"iter\n', (run_dir / 'metrics.damaged.jsonl').read_text())

  def test_bytes_of_a_power_cut_in_the_last_line_are_left_out(self):
    path = self.temp_dir() / 'metrics.jsonl'
    path.write_bytes(b'{"iteration": 0}\n\x00\x00\xff\x00')
    self.assertEqual(metrics.read(path), [{'iteration': 0}])


if __name__ == '__main__':
  absltest.main()
