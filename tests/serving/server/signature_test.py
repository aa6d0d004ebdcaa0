import grpc
import numpy as np
import tensorflow as tf
from absl.testing import absltest, parameterized
from google.protobuf import text_format
from tensorflow.core.protobuf import meta_graph_pb2

from pearl_tf.testing import test_case
from serving.server import errors, signature

FREE = -1


def signature_def(inputs, outputs=()):
  """Inputs: dtype and dims by alias, dims None for an unknown rank."""
  proto = meta_graph_pb2.SignatureDef()
  for alias, (dtype, dims) in inputs.items():
    info = proto.inputs[alias]
    info.name, info.dtype = f'call_{alias}:0', dtype.as_datatype_enum
    if dims is None:
      info.tensor_shape.unknown_rank = True
    for size in dims or ():
      info.tensor_shape.dim.add(size=size)
  for alias in outputs:
    proto.outputs[alias].name, proto.outputs[alias].dtype = f'{alias}:0', 1
    proto.outputs[alias].tensor_shape.dim.add(size=FREE)
  return proto


UPDATE = signature_def(
  {
    'context': (tf.float32, [FREE, FREE, 5]),
    'eta': (tf.float32, [FREE, 2]),
    'num_transitions': (tf.int32, [FREE]),
  },
  ('mean', 'variance', 'count'),
)


def update_inputs(**changes):
  return {
    'context': np.zeros([2, 7, 5], np.float32),
    'eta': np.zeros([2, 2], np.float32),
    'num_transitions': np.zeros([2], np.int32),
    **changes,
  }


class CheckInputsTest(test_case.TestCase):
  def setUp(self):
    super().setUp()
    self.signature = signature.Signature(UPDATE, 'update')

  def check(self, inputs):
    with self.assertRaises(errors.ServingError) as caught:
      self.signature.check_inputs(inputs)
    self.assertIs(caught.exception.code, grpc.StatusCode.INVALID_ARGUMENT)
    return caught.exception.message

  @parameterized.parameters((2, 7), (0, 7), (2, 0), (1, 1))
  def test_any_batch_and_length_pass(self, rows, length):
    self.signature.check_inputs(
      {
        'context': np.zeros([rows, length, 5], np.float32),
        'eta': np.zeros([rows, 2], np.float32),
        'num_transitions': np.zeros([rows], np.int32),
      }
    )

  def test_missing_input(self):
    inputs = update_inputs()
    del inputs['eta']
    self.assertEqual(
      self.check(inputs),
      'input size does not match signature: 2!=3 len({context,num_transitions}) != '
      'len({context,eta,num_transitions}). Sent extra: {}. Missing but required: {eta}.',
    )

  def test_extra_input(self):
    self.assertEqual(
      self.check(update_inputs(more=np.zeros(2))),
      'input size does not match signature: 4!=3 len({context,eta,more,num_transitions}) != '
      'len({context,eta,num_transitions}). Sent extra: {more}. Missing but required: {}.',
    )

  def test_wrong_name(self):
    inputs = update_inputs()
    inputs['etta'] = inputs.pop('eta')
    self.assertStartsWith(
      self.check(inputs),
      'Signature input alias: eta(feed name: call_eta:0) not found in request and no default value '
      'provided. Inputs expected to be in the set {context,eta,num_transitions}.',
    )

  @parameterized.parameters(
    ({'context': np.zeros([2, 7, 5])}, 'Expects arg[0] to be float but double is provided'),
    ({'eta': np.zeros([2, 2], np.int64)}, 'Expects arg[1] to be float but int64 is provided'),
    (
      {'num_transitions': np.array([b'a', b'b'], object)},
      'Expects arg[2] to be int32 but string is provided',
    ),
  )
  def test_wrong_dtype(self, change, message):
    self.assertEqual(self.check(update_inputs(**change)), message)

  @parameterized.parameters(
    ([2, 3], 'Shape of tensor eta [2,3] is not compatible with expected shape [?,2].'),
    ([2], 'Shape of tensor eta [2] is not compatible with expected shape [?,2].'),
    ([], 'Shape of tensor eta [] is not compatible with expected shape [?,2].'),
    ([2, 2, 1], 'Shape of tensor eta [2,2,1] is not compatible with expected shape [?,2].'),
  )
  def test_wrong_shape(self, shape, message):
    self.assertEqual(self.check(update_inputs(eta=np.zeros(shape, np.float32))), message)

  def test_scalar_where_a_vector_belongs(self):
    message = self.check(update_inputs(num_transitions=np.zeros([], np.int32)))
    self.assertIn('num_transitions [] is not compatible with expected shape [?]', message)

  def test_width_of_a_sequence(self):
    message = self.check(update_inputs(context=np.zeros([2, 7, 4], np.float32)))
    self.assertIn('[2,7,4] is not compatible with expected shape [?,?,5]', message)

  def test_rows_differ(self):
    message = self.check(update_inputs(eta=np.zeros([3, 2], np.float32)))
    self.assertEqual(message, 'Batching Run() input tensors must have equal 0th-dimension size')

  def test_unknown_rank_takes_any_shape(self):
    tested = signature.Signature(signature_def({'x': (tf.float32, None)}), 'x')
    for shape in ([], [3], [2, 2, 2]):
      tested.check_inputs({'x': np.zeros(shape, np.float32)})


class SelectOutputsTest(test_case.TestCase):
  def setUp(self):
    super().setUp()
    self.signature = signature.Signature(UPDATE, 'update')

  def test_empty_means_all(self):
    self.assertEqual(self.signature.select_outputs([]), ('count', 'mean', 'variance'))

  def test_order_does_not_matter(self):
    self.assertEqual(self.signature.select_outputs(['mean', 'count']), ('count', 'mean'))

  @parameterized.parameters(
    (
      ['mean', 'nope'],
      'output tensor alias not found in signature: nope Outputs expected to be in the set '
      '{count,mean,variance}.',
    ),
    (['mean', 'mean'], 'duplicate output tensor alias: mean'),
  )
  def test_refuses(self, output_filter, message):
    with self.assertRaises(errors.ServingError) as caught:
      self.signature.select_outputs(output_filter)
    self.assertIs(caught.exception.code, grpc.StatusCode.INVALID_ARGUMENT)
    self.assertEqual(caught.exception.message, message)

  def test_signature_without_outputs(self):
    tested = signature.Signature(signature_def({'x': (tf.float32, [FREE])}), 'x')
    with self.assertRaisesRegex(errors.ServingError, 'Must specify at least one target to fetch'):
      tested.select_outputs()


class IsBatchableTest(test_case.TestCase):
  @parameterized.parameters(
    ([FREE, 2], True), ([FREE], True), ([], False), ([1, 2], False), (None, False)
  )
  def test_needs_a_free_dimension_0(self, dims, expected):
    proto = signature_def({'x': (tf.float32, dims)}, ('y',))
    self.assertEqual(signature.Signature(proto, 'x').is_batchable, expected)

  def test_needs_inputs(self):
    self.assertFalse(signature.Signature(signature_def({}, ('y',)), 'x').is_batchable)

  def test_outputs_count_too(self):
    proto = signature_def({'x': (tf.float32, [FREE])}, ('y',))
    text_format.Parse('outputs { key: "scalar" value { name: "s:0" dtype: DT_FLOAT } }', proto)
    self.assertFalse(signature.Signature(proto, 'x').is_batchable)


if __name__ == '__main__':
  absltest.main()
