import json
import math

import grpc
import numpy as np
import prometheus_client.parser
from absl.testing import absltest, parameterized
from tensorflow_serving.apis import prediction_service_pb2_grpc

from pearl_tf.testing import test_case
from serving.server import errors, http, metrics
from tests.serving.support import contract_cases, toy_server

MODEL = f'/v1/models/{toy_server.MODEL}'
OBSERVATION, LATENT = [1.0, 2.0, 3.0], [4.0, 5.0]
ROW = {'observation': OBSERVATION, 'z': LATENT}
COLUMNS = {'observation': [OBSERVATION], 'z': [LATENT]}


class HttpTest(test_case.TestCase):
  @classmethod
  def setUpClass(cls):
    super().setUpClass()
    cls.server = cls.enterClassContext(toy_server.serving(max_message_bytes=100_000))

  def http(self, path, body=None, **kwargs):
    return toy_server.http(f'http://{self.server.rest_address}{path}', body, **kwargs)

  def predict(self, body, path=MODEL):
    return self.http(f'{path}:predict', body)

  def test_rows(self):
    reply = self.predict(
      {
        'signature_name': 'encode',
        'instances': [
          {'context': [[1.0] * 5] * 2, 'num_transitions': 2},
          {'context': [[0.5] * 5] * 2, 'num_transitions': 1},
        ],
      }
    )
    self.assertEqual((reply.status, reply.content_type), (200, 'application/json'))
    self.assertEqual(
      reply.json,
      {
        'predictions': [
          {'count': 2, 'mean': [10.0, 10.0], 'variance': [1.0, 1.0]},
          {'count': 1, 'mean': [2.5, 2.5], 'variance': [1.0, 1.0]},
        ]
      },
    )

  def test_columns(self):
    body = {'inputs': {'context': [[[1.0] * 5] * 2], 'num_transitions': [2]}}
    self.assertEqual(
      self.predict(body).json,
      {
        'outputs': {
          'count': [2],
          'mean': [[10.0, 10.0]],
          'variance': [[1.0, 1.0]],
        }
      },
    )

  def test_single_output_goes_without_its_name(self):
    body = {'signature_name': 'act', 'instances': [ROW]}
    self.assertEqual(self.predict(body).json, {'predictions': [[15.0, 15.0]]})
    body = {'signature_name': 'act', 'inputs': COLUMNS}
    self.assertEqual(self.predict(body).json, {'outputs': [[15.0, 15.0]]})

  def test_single_input_goes_without_its_name(self):
    body = {'signature_name': 'strict', 'instances': [[1.0, 2.0], [3.0, 0.25]]}
    self.assertEqual(self.predict(body).json, {'predictions': [[1.0, 2.0], [3.0, 0.25]]})
    body = {'signature_name': 'strict', 'inputs': [[1.0, 2.0]]}
    self.assertEqual(self.predict(body).json, {'outputs': [[1.0, 2.0]]})

  def test_non_finite_numbers_go_both_ways(self):
    text = (
      b'{"signature_name": "act", "instances": [{"observation": [NaN, 0, 0], "z": [0, 0]},'
      b'{"observation": [Infinity, 0, 0], "z": [0, 0]}]}'
    )
    reply = self.predict(text)
    self.assertIn('NaN', reply.text)
    rows = reply.json['predictions']
    self.assertTrue(math.isnan(rows[0][0]))
    self.assertEqual(rows[1][0], math.inf)

  @parameterized.parameters(f'{MODEL}/versions/3', MODEL)
  def test_path_selects_the_version(self, path):
    body = {'signature_name': 'act', 'instances': [ROW]}
    self.assertEqual(self.predict(body, path).status, 200)

  def test_same_answer_as_grpc(self):
    inputs = {
      name: np.random.default_rng(0).normal(size=array.shape).astype(np.float32)
      for name, array in contract_cases.acting(4).items()
    }
    with grpc.insecure_channel(self.server.address) as channel:
      stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)
      request = contract_cases.predict('act', inputs, model=toy_server.MODEL)
      expected = stub.Predict(request, timeout=60).outputs['action'].float_val
    columns = {name: array.tolist() for name, array in inputs.items()}
    # Numbers that a client holds as float32 are written with as many digits as that takes.
    reply = self.predict({'signature_name': 'act', 'inputs': columns})
    np.testing.assert_array_equal(
      np.ravel(reply.json['outputs']).astype(np.float32), np.array(expected, np.float32)
    )

  @parameterized.named_parameters(
    ('unknown_model', 'x', {'instances': [ROW]}, 404, r'Latest\(x\)'),
    ('unknown_version', 'toy/versions/9', {'instances': [ROW]}, 404, r'Specific\(toy, 9\)'),
    ('huge_version', f'toy/versions/{10**30}', {'instances': [ROW]}, 400, 'Malformed request'),
    ('unknown_signature', 'toy', {'signature_name': 'zz', 'instances': [ROW]}, 400, '"zz" not fou'),
    ('no_json', 'toy', b'{', 400, '^JSON Parse error: '),
    ('deep_json', 'toy', b'[' * 90_000, 400, '^JSON Parse error: '),
    ('no_utf8', 'toy', b'{"a": "\xff"}', 400, '^JSON Parse error: '),
    ('empty', 'toy', b'', 400, '^JSON Parse error: '),
    ('no_object', 'toy', [1], 400, 'must be an object'),
    ('neither', 'toy', {}, 400, "either 'inputs' or 'instances'"),
    ('both', 'toy', {'inputs': 1, 'instances': 2}, 400, "either 'inputs' or 'instances'"),
    ('signature_no_string', 'toy', {'signature_name': 1, 'inputs': 1}, 400, 'be a string value'),
    ('instances_no_list', 'toy', {'instances': 1}, 400, 'must be a list'),
    ('no_instances', 'toy', {'instances': []}, 400, 'must be a list'),
  )
  def test_refused(self, path, body, status, text):
    reply = self.predict(body, f'/v1/models/{path}')
    self.assertEqual(reply.status, status, reply.text)
    self.assertRegex(reply.json['error'], text)

  @parameterized.named_parameters(
    ('missing_row_key', {'instances': [{'z': LATENT}]}, 'Missing but required: {observation}'),
    ('missing_column', {'inputs': {'z': [LATENT]}}, 'Missing but required: {observation}'),
    ('plain_list', {'instances': [LATENT]}, 'Missing but required: {z}'),
    ('plain_columns', {'inputs': [LATENT]}, 'Missing but required: {z}'),
    ('mixed_rows', {'instances': [ROW, 1]}, 'instance 1 has other keys'),
    ('ragged', {'instances': [ROW, ROW | {'z': [1.0]}]}, 'z: .*inhomogeneous'),
    ('string', {'instances': [ROW | {'z': [1.0, 'a']}]}, 'z must hold values of type float32'),
    ('null', {'instances': [ROW | {'z': [1.0, None]}]}, 'z must hold values of type float32'),
    ('bool', {'instances': [ROW | {'z': [True, True]}]}, 'z must hold values of type float32'),
    ('too_large', {'instances': [ROW | {'z': [1.0, 1e39]}]}, 'out of the range of float32'),
    ('width', {'instances': [ROW | {'z': [1.0]}]}, r'not compatible with expected shape \[\?,2\]'),
    ('rows', {'instances': [ROW] * 257}, 'at most 256 in one request'),
    ('deep', {'inputs': {'z': json.loads('[' * 40 + ']' * 40), 'observation': [[0.0] * 3]}}, 'z'),
  )
  def test_refused_inputs(self, body, text):
    reply = self.predict({'signature_name': 'act'} | body)
    self.assertEqual(reply.status, 400, reply.text)
    self.assertRegex(reply.json['error'], text)

  def test_integers_must_be_whole_and_fit(self):
    for number, text in ((1.5, 'must hold values of type int32'), (2**40, 'out of the range')):
      body = {'instances': [{'context': [[1.0] * 5], 'num_transitions': number}]}
      self.assertRegex(self.predict(body).json['error'], text)

  def test_failing_graph(self):
    body = {'signature_name': 'strict', 'instances': [[math.nan, 1.0]]}
    reply = self.predict(body)
    self.assertEqual(reply.status, 400)
    self.assertIn('values must be finite', reply.json['error'])

  def test_large_body(self):
    self.assertEqual(self.predict(b' ' * 100_001).status, 413)

  def test_status(self):
    for path in (MODEL, f'{MODEL}/versions/3'):
      self.assertEqual(
        self.http(path).json,
        {
          'model_version_status': [
            {
              'version': '3',
              'state': 'AVAILABLE',
              'status': {'error_code': 'OK', 'error_message': ''},
            }
          ]
        },
      )

  def test_metadata(self):
    found = self.http(f'{MODEL}/metadata').json
    self.assertEqual(
      found['model_spec'], {'name': toy_server.MODEL, 'version': '3', 'signature_name': ''}
    )
    signature = found['metadata']['signature_def']['signature_def']['act']
    self.assertEqual(signature['inputs']['z']['dtype'], 'DT_FLOAT')
    self.assertEqual(signature['inputs']['z']['tensor_shape']['dim'][1]['size'], '2')

  @parameterized.parameters(
    ('GET', '/v1/models/x', 404, '^Could not find any versions of model x$'),
    ('GET', f'{MODEL}/versions/9', 404, '^Could not find version 9 of model toy$'),
    ('DELETE', MODEL, 400, '^Malformed request: DELETE /v1/models/toy$'),
    ('GET', '/v1/else', 400, '^Malformed request'),
    ('POST', f'{MODEL}:classify', 400, '^Malformed request'),
    ('GET', f'{MODEL}:predict', 400, '^Malformed request'),
    ('GET', '/nowhere', 404, 'Not Found'),
  )
  def test_paths(self, method, path, status, text):
    reply = self.http(path, method=method)
    self.assertEqual(reply.status, status)
    self.assertRegex(reply.json['error'], text)

  def samples(self):
    reply = self.http(metrics.PATH)
    self.assertEqual(reply.content_type, 'text/plain')
    families = prometheus_client.parser.text_string_to_metric_families(reply.text)
    return [sample for family in families for sample in family.samples]

  def value(self, samples, name, **labels):
    found = [s.value for s in samples if s.name == name and labels.items() <= s.labels.items()]
    return found[0] if found else 0.0

  def test_metrics_count_requests_under_the_names_of_tf_serving(self):
    count = ':tensorflow:serving:request_count_total'
    before = self.samples()
    self.predict({'signature_name': 'act', 'instances': [ROW]})
    self.predict({'signature_name': 'nosuch', 'instances': [ROW]})
    for made_up in ('x', 'y'):
      self.predict({'instances': [ROW]}, f'/v1/models/{made_up}')
    after = self.samples()
    for name, labels, added in (
      (count, {'model_name': 'toy', 'status': 'OK'}, 1),
      (count, {'model_name': 'toy', 'status': 'FAILED_PRECONDITION'}, 1),
      (count, {'model_name': '', 'status': 'NOT_FOUND'}, 2),
      (':tensorflow:serving:request_latency_count', {'model_name': 'toy'}, 1),
    ):
      change = self.value(after, name, **labels) - self.value(before, name, **labels)
      self.assertEqual(change, added, (name, labels))
    self.assertNotIn('x', {sample.labels.get('model_name') for sample in after})
    self.assertEqual(self.value(after, 'pearl_serving_loads_total', status='success'), 1)
    self.assertEqual(self.value(after, 'pearl_serving_requests_in_flight'), 0)


class FormatTest(test_case.TestCase):
  def test_rows_need_equal_batches(self):
    outputs = {'a': np.zeros(2), 'b': np.zeros(3)}
    with self.assertRaisesRegex(errors.ServingError, 'inconsistent batch sizes'):
      http.to_json(outputs, by_row=True)

  def test_large_integers_keep_their_digits(self):
    outputs = {'tag': np.array([2**62 + 1], np.int64)}
    self.assertIn(str(2**62 + 1), http.to_json(outputs, by_row=False))


if __name__ == '__main__':
  absltest.main()
