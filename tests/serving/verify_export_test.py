import io
import json

import numpy as np
import tensorflow as tf
from absl import app
from absl.testing import absltest, parameterized
from tensorflow_serving.apis import prediction_log_pb2

from pearl_tf.export import state_exporter
from pearl_tf.networks import recurrent_actor_critic
from pearl_tf.testing import exported_model, test_case
from serving import verify_export
from tests.serving.support import in_process

RECORDS = 'assets.extra/tf_serving_warmup_requests'
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


def problems_of(version_dir):
  return {
    check.name: check.problems for check in verify_export.verify(version_dir) if check.problems
  }


class VerifyTest(test_case.TestCase):
  def save(self, module=None, *, signatures=None, records=None, folder=None):
    """Saves a module as version 1 of `model`; returns the version's folder."""
    module = module or Module()
    version_dir = (folder or self.temp_dir()) / 'model' / '1'
    tf.saved_model.save(
      module, str(version_dir), signatures=signatures or {'serving_default': module.call}
    )
    write_records(version_dir, records or [('serving_default', inputs_of(), None)])
    return version_dir

  def test_good_model_passes(self):
    answers = {'y': inputs_of()['x'] + np.array([1.0, 2.0], np.float32)}
    version_dir = self.save(
      records=[('', inputs_of(), answers), ('serving_default', inputs_of(1), None)]
    )
    checks = verify_export.verify(version_dir)
    self.assertEqual([check.problems for check in checks], [[]] * 8)

  def test_model_that_must_not_be_served_is_not_run(self):
    module = Module(lambda module, x: x + tf.random.normal([2]))
    (check,) = verify_export.verify(self.save(module))
    self.assertIn('stateless', str(check.problems))

  def test_other_answers_than_the_agents_are_found(self):
    version_dir = self.save(records=[('', inputs_of(), {'y': inputs_of()['x']})])
    self.assertEqual(
      list(problems_of(version_dir)), ['answers as the agent did when it was exported']
    )

  def test_rows_that_see_their_batch_are_found(self):
    module = Module(lambda module, x: x - tf.reduce_sum(x, axis=0, keepdims=True))
    found = problems_of(self.save(module))
    self.assertIn("output 'y'", str(found['rows do not depend on their batch']))

  def test_rows_that_spoil_their_neighbours_are_found(self):
    def checked(module, x):
      del module
      return tf.debugging.check_numerics(x, 'a number is missing')

    found = problems_of(self.save(Module(checked)))
    self.assertRegex(str(found), 'record 0.*in a batch: .*a number is missing')
    module = Module(lambda module, x: x + tf.cast(tf.math.is_nan(tf.reduce_sum(x)), x.dtype))
    found = problems_of(self.save(module))
    self.assertEqual(list(found), ['faulty rows leave their neighbours alone'])

  @parameterized.named_parameters(
    ('type', ('', {'x': np.zeros([3, 2])}, None), 'to be float but double is provided'),
    ('name', ('', {'y': np.zeros([3, 2], np.float32)}, None), 'Signature input alias: x'),
    ('rank', ('', {'x': np.float32(1)}, None), 'not compatible'),
    ('signature', ('nosuch', inputs_of(), None), '"nosuch" not found'),
  )
  def test_faulty_record_is_found(self, record, words):
    self.assertRegex(str(problems_of(self.save(records=[record]))), words)

  def test_signature_without_a_record_is_found(self):
    module = Module()
    version_dir = self.save(module, signatures={'serving_default': module.call, 'act': module.call})
    self.assertRegex(str(problems_of(version_dir)), "signature 'act' has none")
    (version_dir / RECORDS).unlink()
    self.assertLen(problems_of(version_dir)['every signature has a warm-up record'], 2)

  def test_damaged_files_are_found(self):
    version_dir = self.save()
    path = version_dir / RECORDS
    path.write_bytes(path.read_bytes()[:-3])
    self.assertRegex(str(problems_of(version_dir)), 'truncated record')
    version_dir = self.save()
    for path in (version_dir / 'variables').iterdir():
      path.write_bytes(path.read_bytes()[:10])
    self.assertRegex(str(problems_of(version_dir)), 'loads and runs')

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
    manifest = version_dir / 'assets.extra' / 'pearl_manifest.json'
    manifest.write_text(json.dumps({'supports_update': False}))
    wanted = [] if refused else ['refuses what the manifest says it cannot do']
    self.assertEqual(list(problems_of(version_dir)), wanted)

  def test_newest_versions_are_found_from_every_level(self):
    folder = self.temp_dir()
    for path in ('a/2', 'a/10', 'a/.tmp-11', 'b/1', 'c', 'policy_saver/3'):
      (folder / path).mkdir(parents=True)
    (folder / 'a' / '10' / 'saved_model.pb').touch()
    find = verify_export.version_dirs
    self.assertEqual(find(folder), [folder / 'a' / '10', folder / 'b' / '1'])
    self.assertLen(find(folder, all_versions=True), 3)
    self.assertEqual(find(folder / 'a'), [folder / 'a' / '10'])
    self.assertEqual(find(folder / 'a' / '10'), [folder / 'a' / '10'])
    self.assertEqual(find(folder / 'a' / '2'), [folder / 'a' / '2'])
    for empty in (folder / 'c', folder / 'nowhere'):
      with self.assertRaises(ValueError):
        find(empty)

  def test_report(self):
    folder = self.temp_dir()
    version_dir = self.save(folder=folder)
    self.assertIn('fit to be served: 1 models', self.printed_by_main(str(folder)))
    self.assertTrue(json.loads(self.printed_by_main(str(folder), json=True))['fit'])
    (version_dir / 'saved_model.pb').write_bytes(b'')
    with self.assertRaisesRegex(SystemExit, '1'):
      self.printed_by_main(str(folder))
    self.assertRegex(self.printed, "(?s)FAIL.*no graph with the one tag 'serve'.*not fit.*1 of 1")

  def test_main_wants_a_folder_with_models(self):
    for arguments in ([], [str(self.temp_dir())], ['a', 'b']):
      with self.assertRaises(app.UsageError):
        self.printed_by_main(*arguments)

  def printed_by_main(self, *arguments, **values):
    printed = io.StringIO()
    values = {'json': False, 'all_versions': False} | values
    try:
      return in_process.run_main(verify_export, *arguments, printed=printed, **values)
    finally:
      self.printed = printed.getvalue()


class AgentTest(test_case.TestCase):
  """The real export: fit to be served, and its answers are those of the agent it came from."""

  @parameterized.parameters('gaussian', 'linear_gaussian', 'recurrent')
  def test_export_is_verified(self, encoder):
    folder = exported_model.export_small(self.temp_dir(), encoder=encoder)
    versions = verify_export.version_dirs(folder)
    self.assertEqual(
      [path.parent.name for path in versions], ['pearl', 'pearl_encoder', 'pearl_policy']
    )
    # The parts of one are as good as those of another.
    for version_dir in versions if encoder == 'gaussian' else versions[:1]:
      self.assertEqual(problems_of(version_dir), {})

  def test_export_of_a_recurrent_policy_is_verified(self):
    network = recurrent_actor_critic.RecurrentActorCritic(2, 2, seed=0)
    folder = self.temp_dir()
    state_exporter.StateExporter(exported_model.DOMAIN, folder, network=network).export(
      exported_model.origin()
    )
    (version_dir,) = verify_export.version_dirs(folder)
    self.assertEqual(problems_of(version_dir), {})

  def test_reloaded_files_are_held_against_the_agent(self):
    first = exported_model.export_small(self.temp_dir(), seed=1) / 'pearl' / '1'
    other = exported_model.export_small(self.temp_dir(), seed=2) / 'pearl' / '1'
    for path in (other / 'variables').iterdir():  # The weights of another agent.
      (first / 'variables' / path.name).write_bytes(path.read_bytes())
    found = problems_of(first)['answers as the agent did when it was exported']
    for output in ('mean', 'variance', 'action'):
      self.assertIn(f"output '{output}'", str(found))


if __name__ == '__main__':
  absltest.main()
