import pathlib
import tempfile
import threading

import grpc
import numpy as np
import tensorflow as tf
from absl.testing import absltest, parameterized
from tensorflow_serving.apis import predict_pb2, prediction_log_pb2

from pearl_tf.testing import test_case
from serving.server import errors, servable
from tests.serving.support import contract_server, toy_model

ACT = {'observation': np.ones([2, 3], np.float32), 'z': np.ones([2, 2], np.float32)}


def predict_log(signature_name, **inputs):
  request = predict_pb2.PredictRequest()
  request.model_spec.signature_name = signature_name
  for alias, value in inputs.items():
    request.inputs[alias].CopyFrom(tf.make_tensor_proto(value))
  return prediction_log_pb2.PredictionLog(
    predict_log=prediction_log_pb2.PredictLog(request=request)
  )


def write_warmup(version_dir, *logs):
  path = version_dir / servable.RECORDS
  path.parent.mkdir(parents=True, exist_ok=True)
  with tf.io.TFRecordWriter(str(path)) as writer:
    for log in logs:
      writer.write(log.SerializeToString())
  return path


class RunTest(test_case.TestCase):
  @classmethod
  def setUpClass(cls):
    super().setUpClass()
    folder = pathlib.Path(cls.enterClassContext(tempfile.TemporaryDirectory()))
    cls.path = toy_model.save(folder / '7', factor=3.0)
    cls.model = servable.Servable.load(cls.path, name='toy', version=7)
    cls.addClassCleanup(cls.model.close)

  def test_answers_with_its_weights(self):
    outputs = self.model.run('act', ACT, ('action',))
    self.assertEqual((self.model.name, self.model.version), ('toy', 7))
    self.assertAllClose(outputs['action'], np.full([2, 2], 3.0 * 5))

  def test_equals_tensorflow(self):
    inputs = {
      'context': np.random.normal(size=[3, 6, 5]).astype(np.float32),
      'num_transitions': np.array([0, 2, 6], np.int32),
    }
    expected = tf.saved_model.load(str(self.path)).signatures['encode'](
      **{alias: tf.constant(value) for alias, value in inputs.items()}
    )
    names = self.model.find('encode').select_outputs()
    self.assertAllClose(self.model.run('encode', inputs, names), expected, rtol=1e-6)

  def test_empty_name_means_the_default_signature(self):
    self.assertEqual(self.model.find('').name, 'serving_default')
    self.assertIs(self.model.find('act'), self.model.find('act'))

  def test_unknown_signature(self):
    with self.assertRaisesRegex(
      errors.ServingError, 'FAILED_PRECONDITION: Serving signature key "nosuch" not found.'
    ):
      self.model.find('nosuch')

  def test_signatures_hold_the_loaders_own(self):
    self.assertIn('__saved_model_init_op', self.model.protos)

  def test_code_of_the_failing_op(self):
    with self.assertRaises(errors.ServingError) as caught:
      self.model.run('strict', {'values': np.full([1, 2], np.nan, np.float32)}, ('values',))
    self.assertIs(caught.exception.code, grpc.StatusCode.INVALID_ARGUMENT)
    self.assertIn('values must be finite', caught.exception.message)

  @parameterized.parameters((0,), (1,), (65,))
  def test_any_batch(self, rows):
    values = np.ones([rows, 2], np.float32)
    outputs = self.model.run('strict', {'values': values}, ('values',))
    self.assertAllClose(outputs['values'], 3.0 * values)

  def test_any_set_of_outputs_with_few_callables(self):
    inputs = {
      'context': np.ones([1, 2, 5], np.float32),
      'num_transitions': np.array([2], np.int32),
    }
    names = ('count', 'mean', 'variance')
    for signature in ('encode', 'serving_default'):
      for mask in range(1, 8):
        chosen = tuple(name for i, name in enumerate(names) if mask >> i & 1)
        outputs = self.model.run(signature, inputs, chosen)
        self.assertEqual(tuple(outputs), chosen)
    self.assertAllClose(outputs['mean'], [[30.0, 30.0]])

  def test_many_threads(self):
    results = []

    def call(value):
      inputs = {'values': np.full([1, 2], value, np.float32)}
      results.extend((value, self.model.run('strict', inputs, ('values',))) for _ in range(50))

    threads = [threading.Thread(target=call, args=(value,)) for value in range(4)]
    for thread in threads:
      thread.start()
    for thread in threads:
      thread.join()
    self.assertLen(results, 200)
    for value, outputs in results:
      self.assertAllClose(outputs['values'], [[3.0 * value] * 2])


class LeaseTest(test_case.TestCase):
  def test_blocks_are_counted(self):
    path = contract_server.copy_version(contract_server.originals() / 'tiny', self.temp_dir() / '1')
    model = servable.Servable.load(path, name='toy', version=1)
    with model, model:
      self.assertEqual(model.num_leases, 2)
    self.assertEqual(model.num_leases, 0)
    model.close()


class LoadTest(test_case.TestCase):
  def setUp(self):
    super().setUp()
    self.base = self.temp_dir()

  def failure(self, path):
    with self.assertRaises(errors.ServingError) as caught:
      servable.Servable.load(path, name='toy', version=1)
    return caught.exception.code, caught.exception.message

  def test_truncated_variables(self):
    path = contract_server.copy_version(contract_server.originals() / 'toy', self.base / '1')
    (data,) = (path / 'variables').glob('variables.data*')
    data.write_bytes(data.read_bytes()[:8])
    code, _ = self.failure(path)
    self.assertIn(code, (grpc.StatusCode.OUT_OF_RANGE, grpc.StatusCode.DATA_LOSS))

  def test_missing_shard(self):
    path = contract_server.copy_version(contract_server.originals() / 'toy', self.base / '1')
    next((path / 'variables').glob('variables.data*')).unlink()
    code, message = self.failure(path)
    self.assertIs(code, grpc.StatusCode.DATA_LOSS)
    self.assertIn('an incomplete copy?', message)

  def test_graph_that_must_not_be_served(self):
    @tf.function(jit_compile=True, input_signature=[tf.TensorSpec([None], name='x')])
    def double(x):
      return {'y': 2 * x}

    code, message = self.failure(toy_model.save_function(self.base / '1', double))
    self.assertIs(code, grpc.StatusCode.FAILED_PRECONDITION)
    self.assertIn('jit_compile', message)

  def test_what_cannot_be_batched_can_be_served(self):
    @tf.function(input_signature=[tf.TensorSpec([], name='x')])
    def double(x):
      return {'y': 2 * x}

    path = toy_model.save_function(self.base / '1', double)
    model = servable.Servable.load(path, name='toy', version=1)
    self.addCleanup(model.close)
    self.assertFalse(model.find().is_batchable)
    self.assertAllEqual(model.run('serving_default', {'x': np.float32(2)}, ('y',))['y'], 4.0)


class WarmupTest(test_case.TestCase):
  def setUp(self):
    super().setUp()
    self.path = contract_server.copy_version(
      contract_server.originals() / 'toy', self.temp_dir() / '1'
    )

  def load(self):
    model = servable.Servable.load(self.path, name='toy', version=1)
    self.addCleanup(model.close)

  def failure(self):
    with self.assertRaises(errors.ServingError) as caught:
      self.load()
    return caught.exception.code, caught.exception.message

  def test_good_records_pass(self):
    write_warmup(self.path, predict_log('act', **ACT), predict_log('act', **ACT))
    self.load()

  def test_records_are_run(self):
    write_warmup(
      self.path,
      predict_log('act', **ACT),
      predict_log('strict', values=np.full([1, 2], np.nan, np.float32)),
    )
    code, message = self.failure()
    self.assertIs(code, grpc.StatusCode.INVALID_ARGUMENT)
    self.assertStartsWith(message, 'warm-up record 2: ')
    self.assertIn('values must be finite', message)

  def test_unknown_signature(self):
    write_warmup(self.path, predict_log('nosuch', **ACT))
    code, message = self.failure()
    self.assertIs(code, grpc.StatusCode.FAILED_PRECONDITION)
    self.assertIn('Serving signature key "nosuch" not found.', message)

  def test_missing_input(self):
    write_warmup(self.path, predict_log('act', z=ACT['z']))
    self.assertIn('Missing but required: {observation}', self.failure()[1])

  def test_other_services_are_skipped(self):
    log = prediction_log_pb2.PredictionLog()
    log.classify_log.SetInParent()
    write_warmup(self.path, log)
    self.load()

  def test_other_kinds_fail(self):
    log = prediction_log_pb2.PredictionLog()
    log.session_run_log.SetInParent()
    write_warmup(self.path, log)
    code, message = self.failure()
    self.assertIs(code, grpc.StatusCode.UNIMPLEMENTED)
    self.assertIn('session_run_log', message)

  def test_too_many(self):
    log = predict_log('strict', values=np.ones([1, 2], np.float32))
    write_warmup(self.path, *[log] * 1001)
    code, message = self.failure()
    self.assertIs(code, grpc.StatusCode.INVALID_ARGUMENT)
    self.assertIn('exceeds the maximum (1000)', message)

  def test_truncated_file(self):
    path = write_warmup(self.path, predict_log('act', **ACT))
    path.write_bytes(path.read_bytes()[:-3])
    self.assertIs(self.failure()[0], grpc.StatusCode.DATA_LOSS)

  def test_record_that_is_no_log(self):
    with tf.io.TFRecordWriter(str(write_warmup(self.path))) as writer:
      writer.write(b'\xff\xff\xff')
    self.assertIs(self.failure()[0], grpc.StatusCode.INVALID_ARGUMENT)


if __name__ == '__main__':
  absltest.main()
