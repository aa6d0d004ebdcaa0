"""The requests of TF Serving's contract over real gRPC: sections 1.1 and 1.2 of its description.

Runs against our server, or against any other: see `tests.serving.support.contract_server`.
"""

import grpc
import numpy as np
from absl.testing import absltest, parameterized
from google.protobuf import message
from tensorflow.core.framework import types_pb2
from tensorflow_serving.apis import (
  classification_pb2,
  get_model_metadata_pb2,
  get_model_status_pb2,
  inference_pb2,
  predict_pb2,
  regression_pb2,
  session_service_pb2,
)

from pearl_tf.testing import test_case
from serving.server import tensors
from tests.serving.support import contract_cases, contract_server, toy_model

CODE = grpc.StatusCode
CASES = tuple((case.name, case) for case in contract_cases.PREDICT)
PREDICTION_SERVICE = '/tensorflow.serving.PredictionService/'
ANY_TEXT = '^'
TOO_MANY_CALLS = 40
MAX_CALLS = 16


def metadata_request(*fields: str, model: str | None = contract_cases.MODEL):
  request = get_model_metadata_pb2.GetModelMetadataRequest(metadata_field=fields)
  if model is not None:
    request.model_spec.name = model
  return request


def status_request(model: str | None = contract_cases.MODEL, version=None, label=None):
  request = get_model_status_pb2.GetModelStatusRequest()
  if model is not None:
    request.model_spec.name = model
  if version is not None:
    request.model_spec.version.value = version
  if label is not None:
    request.model_spec.version_label = label
  return request


class ContractTestCase(test_case.TestCase):
  """A server for all tests of a class."""

  @classmethod
  def setUpClass(cls):
    super().setUpClass()
    cls.server = cls.enterClassContext(contract_server.serving(grpc_max_threads=MAX_CALLS))

  def assert_fails(self, code: grpc.StatusCode, text: str, call, *args, **kwargs) -> None:
    with self.assertRaises(grpc.RpcError) as caught:
      call(*args, **kwargs)
    self.assertEqual(caught.exception.code(), code, caught.exception.details())
    self.assertRegex(caught.exception.details(), text)

  def check_case(self, case: contract_cases.Case) -> None:
    answer = case.answer(is_stock=self.server.is_stock, is_batched=self.server.is_batched)
    if answer.code is CODE.OK:
      response = self.server.predict(case.request())
      self.assertEqual(response.model_spec.name, contract_cases.MODEL)
    else:
      self.assert_fails(answer.code, answer.text, self.server.predict, case.request())


class PredictTest(ContractTestCase):
  @parameterized.named_parameters(*CASES)
  def test_case(self, case):
    self.check_case(case)

  def test_server_answers_after_every_fault(self):
    for case in contract_cases.PREDICT:
      with self.subTest(case.name):
        self.check_case(case)
        self.server.predict(contract_cases.predict('act', contract_cases.acting()))

  def test_answer_is_right(self):
    response = self.server.predict(contract_cases.predict('act', contract_cases.acting(3)))
    np.testing.assert_allclose(tensors.decode(response.outputs['action']), np.full((3, 2), 5.0))

  def test_answer_echoes_the_effective_model(self):
    response = self.server.predict(contract_cases.predict('', contract_cases.context()))
    spec = response.model_spec
    self.assertEqual(
      (spec.name, spec.version.value, spec.signature_name),
      (contract_cases.MODEL, contract_cases.CANARY, 'serving_default'),
    )

  @parameterized.parameters(({'version': 1}, 1), ({'version': 2}, 2), ({}, 2))
  def test_version_is_the_one_asked_for(self, spec, version):
    request = contract_cases.predict('act', contract_cases.acting(), **spec)
    self.assertEqual(self.server.predict(request).model_spec.version.value, version)

  def test_answer_is_in_typed_fields(self):
    outputs = self.server.predict(
      contract_cases.predict('encode', contract_cases.context(4))
    ).outputs
    self.assertLen(outputs['mean'].float_val, 4 * toy_model.LATENT_SIZE)
    self.assertLen(outputs['count'].int_val, 4)
    self.assertEqual(outputs['mean'].tensor_content, b'')
    self.assertEqual(outputs['count'].dtype, types_pb2.DT_INT32)

  def test_output_filter_selects(self):
    request = contract_cases.predict('encode', contract_cases.context(), output_filter=['count'])
    self.assertEqual(set(self.server.predict(request).outputs), {'count'})

  def test_both_encodings_and_splat_mean_the_same(self):
    ones = np.ones((1, toy_model.LATENT_SIZE), np.float32)
    answers = []
    for latent in (
      tensors.encode(ones),
      tensors.encode(ones, as_content=False),
      contract_cases.message(ones.shape, float_val=[1]),
    ):
      request = contract_cases.predict('act', contract_cases.acting() | {'z': latent})
      answers.append(tensors.decode(self.server.predict(request).outputs['action']).tolist())
    self.assertEqual(answers, [answers[0]] * 3)

  @parameterized.parameters((0, 3), (1, 0), (0, 0))
  def test_nothing_to_encode(self, rows, length):
    request = contract_cases.predict('encode', contract_cases.context(rows, length))
    mean = tensors.decode(self.server.predict(request).outputs['mean'])
    np.testing.assert_array_equal(mean, np.zeros((rows, toy_model.LATENT_SIZE)))

  def test_long_message_is_cut(self):
    request = contract_cases.predict('encode', contract_cases.context())
    request.output_filter.append('x' * 3000)
    self.assert_fails(
      CODE.INVALID_ARGUMENT, r'^.{1024}\.\.\.TRUNCATED$', self.server.predict, request
    )


class TransportTest(ContractTestCase):
  def raw(self, method: str):
    return self.server.channel.unary_unary(method)

  def test_bytes_that_are_no_message(self):
    self.assert_fails(
      CODE.INTERNAL, ANY_TEXT, self.raw(PREDICTION_SERVICE + 'Predict'), b'\xff\xff\xff', timeout=60
    )

  @parameterized.parameters(
    PREDICTION_SERVICE + 'Guess', '/tensorflow.serving.SessionService/SessionRun', '/a.B/C'
  )
  def test_unknown_method(self, method):
    request = session_service_pb2.SessionRunRequest()
    self.assert_fails(
      CODE.UNIMPLEMENTED, ANY_TEXT, self.raw(method), request.SerializeToString(), timeout=60
    )

  @parameterized.named_parameters(
    ('classify', 'Classify', classification_pb2.ClassificationRequest()),
    ('regress', 'Regress', regression_pb2.RegressionRequest()),
    ('multi_inference', 'MultiInference', inference_pb2.MultiInferenceRequest()),
  )
  def test_calls_for_examples(self, method, request: message.Message):
    code = CODE.INVALID_ARGUMENT if self.server.is_stock else CODE.UNIMPLEMENTED
    self.assert_fails(code, ANY_TEXT, getattr(self.server.prediction, method), request, timeout=60)

  def test_deadline(self):
    request = contract_cases.predict('slow', contract_cases.values())
    self.assert_fails(CODE.DEADLINE_EXCEEDED, ANY_TEXT, self.server.predict, request, timeout=0.01)

  def test_answer_above_the_clients_limit(self):
    request = contract_cases.predict('encode', contract_cases.context(4))
    limit = [('grpc.max_receive_message_length', 50)]
    with grpc.insecure_channel(self.server.address, options=limit) as channel:
      call = channel.unary_unary(
        PREDICTION_SERVICE + 'Predict',
        request_serializer=predict_pb2.PredictRequest.SerializeToString,
      )
      self.assert_fails(
        CODE.RESOURCE_EXHAUSTED, r'larger than max \(\d+ vs\. 50\)', call, request, timeout=60
      )

  def test_too_many_calls_at_once(self):
    if self.server.is_stock and self.server.is_batched:
      self.skipTest('stock with batching queues these calls by design and refuses none')
    request = contract_cases.predict('slow', contract_cases.values())
    calls = [self.server.prediction.Predict.future(request) for _ in range(TOO_MANY_CALLS)]
    codes = [call.code() for call in calls]
    self.assertIn(CODE.OK, codes)
    self.assertIn(CODE.RESOURCE_EXHAUSTED, codes)
    self.assertContainsSubset(codes, [CODE.OK, CODE.RESOURCE_EXHAUSTED])
    refused = calls[codes.index(CODE.RESOURCE_EXHAUSTED)]
    self.assertEqual(refused.details(), 'Server Threadpool Exhausted')
    self.server.predict(contract_cases.predict('act', contract_cases.acting()))


class StatusAndMetadataTest(ContractTestCase):
  def status(self, request):
    return self.server.models.GetModelStatus(request, timeout=60)

  def metadata(self, request):
    return self.server.prediction.GetModelMetadata(request, timeout=60)

  def test_versions_come_newest_first(self):
    found = self.status(status_request()).model_version_status
    self.assertEqual([status.version for status in found], [2, 1])
    self.assertEqual({status.state for status in found}, {contract_server.State.AVAILABLE})
    self.assertEqual({status.status.error_code for status in found}, {0})

  def test_one_version(self):
    found = self.status(status_request(version=1)).model_version_status
    self.assertEqual([status.version for status in found], [1])

  def test_label_is_ignored(self):
    self.assertLen(self.status(status_request(label='bogus')).model_version_status, 2)

  @parameterized.named_parameters(
    ('no_spec', status_request(None), CODE.INVALID_ARGUMENT, '^Missing ModelSpec'),
    (
      'unknown_model',
      status_request('x'),
      CODE.NOT_FOUND,
      '^Could not find any versions of model x$',
    ),
    (
      'unknown_version',
      status_request(version=9),
      CODE.NOT_FOUND,
      '^Could not find version 9 of model pearl$',
    ),
  )
  def test_status_is_refused(self, request, code, text):
    self.assert_fails(code, text, self.status, request)

  @parameterized.named_parameters(
    ('no_spec', metadata_request('signature_def', model=None), '^Missing ModelSpec'),
    ('no_field', metadata_request(), 'must specify at least one metadata_field'),
    ('unknown_field', metadata_request('foo'), '^Metadata field foo is not supported'),
  )
  def test_metadata_is_refused(self, request, text):
    self.assert_fails(CODE.INVALID_ARGUMENT, text, self.metadata, request)

  def test_metadata_of_unknown_model(self):
    request = metadata_request('signature_def', model='nope')
    self.assert_fails(CODE.NOT_FOUND, r'Latest\(nope\)', self.metadata, request)

  def test_metadata_holds_the_signatures(self):
    response = self.metadata(metadata_request('signature_def'))
    self.assertEqual(response.model_spec.version.value, contract_cases.CANARY)
    packed = response.metadata['signature_def']
    self.assertEqual(packed.type_url, 'type.googleapis.com/tensorflow.serving.SignatureDefMap')
    found = get_model_metadata_pb2.SignatureDefMap()
    self.assertTrue(packed.Unpack(found))
    self.assertContainsSubset(
      {'serving_default', 'act', '__saved_model_init_op'}, set(found.signature_def)
    )
    info = found.signature_def['act'].inputs['observation']
    self.assertEqual([dim.size for dim in info.tensor_shape.dim], [-1, 3])
    self.assertEqual(info.dtype, types_pb2.DT_FLOAT)


class BatchingTest(ContractTestCase):
  def test_calls_of_different_lengths_get_what_they_get_alone(self):
    lengths = [4, 9, 1, 30]
    for _ in range(5):
      calls = [
        self.server.prediction.Predict.future(
          contract_cases.predict('encode', contract_cases.context(1, length)), timeout=60
        )
        for length in lengths
      ]
      for call, length in zip(calls, lengths, strict=True):
        mean = tensors.decode(call.result().outputs['mean'])
        np.testing.assert_allclose(mean, np.full((1, 2), length * 5.0), rtol=1e-6)

  def test_too_late_in_the_queue(self):
    request = contract_cases.predict('slow', contract_cases.values(4))
    first = self.server.prediction.Predict.future(request, timeout=60)
    self.assert_fails(CODE.DEADLINE_EXCEEDED, ANY_TEXT, self.server.predict, request, timeout=0.02)
    self.assertIs(first.code(), CODE.OK)


if __name__ == '__main__':
  absltest.main()
