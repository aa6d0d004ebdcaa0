import contextlib
import io
import json
import os
import subprocess
import sys

import numpy as np
import tensorflow as tf
from absl import app, flags
from absl.testing import absltest, flagsaver, parameterized
from tensorflow_serving.apis import prediction_log_pb2

from pearl_tf.testing import test_case
from serving import verify_export
from serving.verification import export_folder, golden, golden_run, graph_index, proof

ROW = tf.TensorSpec([None, 2], tf.float32, 'x')


class Module(tf.Module):
  """Adds a variable to rows, or does so through a given function."""

  def __init__(self, function=None):
    super().__init__()
    self.variable = tf.Variable([1.0, 2.0])
    self.count = tf.Variable(0.0)
    self.function = function or (lambda module, x: x + module.variable)

  @tf.function(input_signature=[ROW])
  def call(self, x):
    return {'y': self.function(self, x)}


@tf.function(jit_compile=True)
def compiled(x):
  return x * 2.0


def times_two(x):
  return x * 2.0


def python(module, x):
  del module
  return tf.ensure_shape(tf.py_function(times_two, [x], tf.float32), [None, 2])


def write_records(version_dir, records):
  """Writes warm-up records.

  Args:
    version_dir: folder of the model.
    records: (signature name, inputs, answers or None) each.
  """
  extra = version_dir / 'assets.extra'
  extra.mkdir(exist_ok=True)
  with tf.io.TFRecordWriter(str(extra / 'tf_serving_warmup_requests')) as writer:
    for signature_name, inputs, answers in records:
      log = prediction_log_pb2.PredictionLog()
      request = log.predict_log.request
      request.model_spec.name = 'model'
      request.model_spec.signature_name = signature_name
      for name, value in inputs.items():
        request.inputs[name].CopyFrom(tf.make_tensor_proto(value))
      for name, value in (answers or {}).items():
        log.predict_log.response.outputs[name].CopyFrom(tf.make_tensor_proto(value))
      writer.write(log.SerializeToString())


def inputs_of(rows=3):
  return {'x': np.arange(2 * rows, dtype=np.float32).reshape(rows, 2)}


def problems_of(result):
  return {check.name: check.problems for check in result.checks if check.problems}


class VerifyExportTest(test_case.TestCase):
  def save(self, module=None, *, signatures=None, records=None, folder=None):
    """Saves a module as version 1 of `model`; returns the version's folder."""
    module = module or Module()
    version_dir = (folder or self.temp_dir()) / 'model' / '1'
    tf.saved_model.save(
      module, str(version_dir), signatures=signatures or {'serving_default': module.call}
    )
    write_records(version_dir, records or [('serving_default', inputs_of(), None)])
    return version_dir

  def run_in_c(self, version_dir):
    index = graph_index.GraphIndex(graph_index.read(version_dir))
    return golden_run.run(version_dir, index, golden.recorded_calls(version_dir))

  def test_good_model_is_proven(self):
    answers = {'y': inputs_of()['x'] + np.array([1.0, 2.0], np.float32)}
    version_dir = self.save(
      records=[('', inputs_of(), answers), ('serving_default', inputs_of(1), None)]
    )
    result = proof.prove(version_dir)
    self.assertEqual(problems_of(result), {})
    self.assertTrue(result.holds)
    details = {check.name: check.detail for check in result.checks}
    self.assertEqual(details['loads and runs without Python, XLA off'], '7 calls')
    self.assertEqual(details['equal to what the exporter recorded'], '1 records with an answer')

  def test_static_failure_is_reported_and_nothing_is_run(self):
    result = proof.prove(self.save(Module(python)))
    self.assertFalse(result.holds)
    self.assertLen(result.checks, 2)
    self.assertFalse(result.checks[1].made)

  def test_stock_failures_are_reproduced_where_the_static_check_is_passed_over(self):
    (answer,) = self.run_in_c(self.save(Module(python)))
    self.assertEqual(answer.code, 3)
    self.assertIn("No OpKernel was registered to support Op 'EagerPyFunc'", answer.message)
    (answer,) = self.run_in_c(self.save(Module(lambda module, x: compiled(x))))
    self.assertEqual(answer.code, 13)
    self.assertIn('XLA compilation disabled', answer.message)

  def test_other_answers_than_recorded_are_found(self):
    version_dir = self.save(records=[('', inputs_of(), {'y': inputs_of()['x']})])
    self.assertEqual(
      list(problems_of(proof.prove(version_dir))), ['equal to what the exporter recorded']
    )

  def test_rows_that_see_their_batch_are_found(self):
    module = Module(lambda module, x: x - tf.reduce_sum(x, axis=0, keepdims=True))
    found = problems_of(proof.prove(self.save(module)))
    self.assertIn("output 'y'", str(found['rows do not depend on their batch']))

  def test_rows_that_spoil_their_neighbours_are_found(self):
    def checked(module, x):
      del module
      return tf.debugging.check_numerics(x, 'a number is missing')

    found = problems_of(proof.prove(self.save(Module(checked))))
    self.assertRegex(str(found), 'and faulty rows in one batch: code 3: a number is missing')
    module = Module(lambda module, x: x + tf.cast(tf.math.is_nan(tf.reduce_sum(x)), x.dtype))
    found = problems_of(proof.prove(self.save(module)))
    self.assertEqual(list(found), ['faulty rows leave their neighbours alone'])

  def test_faulty_records_are_found(self):
    module = Module()
    version_dir = self.save(
      module,
      signatures={'serving_default': module.call, 'act': module.call},
      records=[
        ('', {'x': np.zeros([3, 2])}, None),
        ('', {'y': np.zeros([3, 2], np.float32)}, None),
        ('', {'x': np.float32(1)}, None),
        ('', {'x': np.array([[b'text', b'text']])}, None),
        ('nosuch', inputs_of(), None),
      ],
    )
    found = '\n'.join(
      problems_of(proof.prove(version_dir))['warm-up records cover every signature']
    )
    for words in (
      'is float64, not DT_FLOAT',
      r"inputs \['y'\], the signature \['x'\]",
      'is a scalar',
      'is object, not DT_FLOAT',
      "no signature 'nosuch'",
      "signature 'act' has no record",
    ):
      self.assertRegex(found, words)

  @parameterized.named_parameters(
    ('missing', lambda path: path.unlink(), 'is missing'),
    ('truncated', lambda path: path.write_bytes(path.read_bytes()[:-3]), 'is damaged'),
    (
      'of_another_kind',
      lambda path: tf.io.TFRecordWriter(str(path)).write(
        prediction_log_pb2.PredictionLog(
          session_run_log=prediction_log_pb2.SessionRunLog()
        ).SerializeToString()
      ),
      'is a session_run_log',
    ),
  )
  def test_unusable_record_file_is_found(self, change, words):
    version_dir = self.save()
    change(version_dir / golden.WARMUP_FILE)
    self.assertRegex(str(problems_of(proof.prove(version_dir))), words)

  def test_lost_variables_are_found(self):
    version_dir = self.save()
    for path in (version_dir / 'variables').iterdir():
      path.write_bytes(path.read_bytes()[:10])
    self.assertRegex(str(problems_of(proof.prove(version_dir))), 'the model does not load: code')

  @parameterized.named_parameters(('refused', True), ('answered', False))
  def test_update_of_a_model_that_cannot(self, refused):
    def update(x):
      if refused:
        with tf.control_dependencies([tf.debugging.Assert(False, ['re-encode the whole context'])]):
          return {'y': tf.identity(x)}
      return {'y': x}

    module = Module()
    module.update = tf.function(update, input_signature=[ROW])
    version_dir = self.save(
      module, signatures={'serving_default': module.call, 'update': module.update}
    )
    manifest = version_dir / golden.MANIFEST_FILE
    manifest.write_text(json.dumps({'supports_update': False}))
    found = problems_of(proof.prove(version_dir))
    wanted = [] if refused else ['refuses what the manifest says it cannot do']
    self.assertEqual(list(found), wanted)

  def test_newest_versions_are_found_from_every_level(self):
    folder = self.temp_dir()
    for path in ('a/2', 'a/10', 'a/.tmp-11', 'b/1', 'c', '.policy_saver'):
      (folder / path).mkdir(parents=True)
    (folder / 'a' / '10' / 'saved_model.pb').touch()
    find = export_folder.version_dirs
    self.assertEqual(find(folder), [folder / 'a' / '10', folder / 'b' / '1'])
    self.assertLen(find(folder, all_versions=True), 3)
    self.assertEqual(find(folder / 'a'), [folder / 'a' / '10'])
    self.assertEqual(find(folder / 'a' / '10'), [folder / 'a' / '10'])
    self.assertEqual(find(folder / 'a' / '2'), [folder / 'a' / '2'])
    for empty in (folder / 'c', folder / 'nowhere'):
      with self.assertRaises(ValueError):
        find(empty)

  @parameterized.named_parameters(
    ('good', 'name: "a" base_path: "/m/a" model_platform: "tensorflow"', None),
    ('platform', 'name: "a" base_path: "/m/a"', 'model_platform'),
    ('no_text_format', 'name: ', 'no ModelServerConfig'),
  )
  def test_configuration_is_judged(self, config, words):
    folder = self.temp_dir()
    (folder / 'models.config').write_text(f'model_config_list {{ config {{ {config} }} }}')
    found = export_folder.config_problems(folder)
    if words is None:
      self.assertEqual(found, [])
    else:
      self.assertLen(found, 1)
      self.assertIn(words, found[0])

  def test_main_reports_a_good_model(self):
    folder = self.temp_dir()
    self.save(folder=folder)
    self.assertIn('fit to be served: 1 models', self.printed_by_main(str(folder)))

  def test_main_reports_a_broken_configuration(self):
    folder = self.temp_dir()
    self.save(folder=folder)
    (folder / 'models.config').write_text('model_config_list {}')
    with self.assertRaisesRegex(SystemExit, '1'):
      self.printed_by_main(str(folder))

  def test_main_wants_a_folder_with_models(self):
    for arguments in ([], [str(self.temp_dir())], ['a', 'b']):
      with self.assertRaises(app.UsageError):
        self.printed_by_main(*arguments)

  def test_program_exits_with_one_on_a_broken_model(self):
    version_dir = self.save()
    (version_dir / 'saved_model.pb').write_bytes(b'')
    root = os.path.dirname(os.path.dirname(os.path.abspath(verify_export.__file__)))
    done = subprocess.run(
      [sys.executable, '-m', 'serving.verify_export', str(version_dir), '--json'],
      env={**os.environ, 'PYTHONPATH': root},
      capture_output=True,
      text=True,
      timeout=300,
      check=False,
    )
    self.assertEqual(done.returncode, 1, done.stderr)
    report = json.loads(done.stdout)
    self.assertFalse(report['fit'])
    self.assertIn("no graph with the one tag 'serve'", str(report['models'][0]['checks'][0]))

  def printed_by_main(self, *arguments):
    printed = io.StringIO()
    with self.program_flags(), contextlib.redirect_stdout(printed):
      verify_export.main(['verify_export', *arguments])
    return printed.getvalue()

  def program_flags(self):
    if 'all_versions' not in flags.FLAGS:
      verify_export.define_flags()
    if not flags.FLAGS.is_parsed():
      flags.FLAGS.mark_as_parsed()
    return flagsaver.flagsaver(json=False, all_versions=False)


if __name__ == '__main__':
  absltest.main()
