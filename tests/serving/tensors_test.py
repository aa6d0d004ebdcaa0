import time

import ml_dtypes
import numpy as np
import tensorflow as tf
from absl.testing import absltest, parameterized
from google.protobuf import message as protobuf_message
from tensorflow.core.framework import tensor_pb2, types_pb2

from pearl_tf.testing import test_case
from serving import tensors

DTYPES = (
  np.float32,
  np.float64,
  np.float16,
  ml_dtypes.bfloat16,
  np.int8,
  np.int16,
  np.int32,
  np.int64,
  np.uint8,
  np.uint16,
  np.uint32,
  np.uint64,
  np.bool_,
)
FORMS = ('content', 'fields')


def message(dtype: int, shape: tuple[int, ...], **fields) -> tensor_pb2.TensorProto:
  proto = tensor_pb2.TensorProto(dtype=dtype, **fields)
  for size in shape:
    proto.tensor_shape.dim.add().size = size
  return proto


def some(dtype: type, shape: tuple[int, ...]) -> np.ndarray:
  numbers = np.random.default_rng(0).integers(0, 120, shape)
  return (numbers > 60) if dtype is np.bool_ else numbers.astype(dtype)


class RoundTripTest(test_case.TestCase):
  @parameterized.product(dtype=DTYPES, form=FORMS, shape=((), (3,), (2, 0, 4), (5, 7, 2)))
  def test_array_survives(self, dtype, form, shape):
    array = some(dtype, shape)
    proto = tensors.encode(array, as_content=form == 'content')
    decoded = tensors.decode(tensor_pb2.TensorProto.FromString(proto.SerializeToString()))
    self.assertEqual(decoded.dtype, np.dtype(dtype))
    self.assertEqual(decoded.shape, shape)
    np.testing.assert_array_equal(decoded, array)

  @parameterized.product(dtype=DTYPES, form=FORMS)
  def test_tensorflow_reads_the_same(self, dtype, form):
    array = some(dtype, (5, 7))
    proto = tensors.encode(array, as_content=form == 'content')
    np.testing.assert_array_equal(tf.io.parse_tensor(proto.SerializeToString(), proto.dtype), array)

  @parameterized.parameters(*DTYPES)
  def test_reads_what_tensorflow_writes(self, dtype):
    array = some(dtype, (5, 7))
    np.testing.assert_array_equal(tensors.decode(tf.make_tensor_proto(array)), array)

  def test_typed_field_holds_no_content(self):
    proto = tensors.encode(np.ones((4, 8), np.float32), as_content=False)
    self.assertLen(proto.float_val, 32)
    self.assertEqual(proto.tensor_content, b'')

  def test_non_finite_numbers_survive(self):
    array = np.array([np.nan, np.inf, -np.inf, -0.0] * 8, np.float32)
    for as_content in (True, False):
      decoded = tensors.decode(tensors.encode(array, as_content=as_content))
      np.testing.assert_array_equal(decoded.view(np.uint32), array.view(np.uint32))

  def test_not_contiguous_array_is_written_in_order(self):
    array = np.arange(60, dtype=np.float32).reshape(6, 10).T[::2]
    for as_content in (True, False):
      np.testing.assert_array_equal(
        tensors.decode(tensors.encode(array, as_content=as_content)), array
      )

  def test_strings(self):
    decoded = tensors.decode(tensors.encode(np.array([['a', b'\xff'], ['', 'd']], object)))
    self.assertEqual(decoded.tolist(), [[b'a', b'\xff'], [b'', b'd']])

  def test_numbers_beyond_int32_keep_their_value(self):
    array = np.array([2**63 - 1, -(2**63)], np.int64)
    for as_content in (True, False):
      np.testing.assert_array_equal(
        tensors.decode(tensors.encode(array, as_content=as_content)), array
      )

  def test_type_without_a_message_is_refused(self):
    with self.assertRaisesRegex(tensors.TensorError, 'datetime64'):
      tensors.encode(np.zeros(2, 'datetime64[s]'))
    with self.assertRaisesRegex(tensors.TensorError, 'type int'):
      tensors.encode(np.array([1, 'a'], object))


class FillingUpTest(test_case.TestCase):
  """TensorFlow's rules for typed fields of another length than the shape's."""

  @parameterized.parameters(
    ([], [0, 0, 0, 0]), ([7], [7, 7, 7, 7]), ([1, 2], [1, 2, 2, 2]), ([1, 2, 3, 4, 5], [1, 2, 3, 4])
  )
  def test_last_value_is_repeated_and_excess_ignored(self, values, expected):
    proto = message(types_pb2.DT_FLOAT, (2, 2), float_val=values)
    self.assertEqual(tensors.decode(proto).ravel().tolist(), expected)
    np.testing.assert_array_equal(
      tf.io.parse_tensor(proto.SerializeToString(), tf.float32), tensors.decode(proto)
    )

  def test_strings_are_filled_up(self):
    proto = message(types_pb2.DT_STRING, (3,), string_val=[b'a', b'b'])
    self.assertEqual(tensors.decode(proto).tolist(), [b'a', b'b', b'b'])

  def test_small_integers_wrap_around_as_in_tensorflow(self):
    proto = message(types_pb2.DT_UINT8, (2,), int_val=[257, -1])
    self.assertEqual(tensors.decode(proto).tolist(), [1, 255])
    np.testing.assert_array_equal(
      tf.io.parse_tensor(proto.SerializeToString(), tf.uint8), tensors.decode(proto)
    )


class RefusalTest(test_case.TestCase):
  @parameterized.named_parameters(
    ('short_content', message(1, (2, 2), tensor_content=b'\0' * 12), 'has 12 bytes'),
    ('long_content', message(1, (2, 2), tensor_content=b'\0' * 17), 'has 17 bytes'),
    ('no_dtype', message(0, (1,), float_val=[1]), 'DT_INVALID is not supported'),
    ('unknown_dtype', message(99, (1,), float_val=[1]), 'data type 99'),
    ('reference_dtype', message(101, (1,), float_val=[1]), 'DT_FLOAT_REF is not supported'),
    ('complex', message(types_pb2.DT_COMPLEX64, (1,), scomplex_val=[1, 1]), 'DT_COMPLEX64'),
    ('negative', message(1, (2, -1), float_val=[1]), 'negative'),
    ('rank', message(1, (1,) * 33, float_val=[1]), 'rank 33'),
    ('too_large', message(1, (2**22 + 1,), float_val=[1]), 'above the limit of 4194304'),
    ('overflow', message(1, (2**40, 2**40), float_val=[1]), 'above the limit'),
    ('large_beside_zero', message(1, (0, 2**62), float_val=[1]), 'above the limit'),
    ('splat', message(1, (2**16 + 1,), float_val=[1, 2]), 'but 2 values'),
    ('empty_splat', message(1, (2**20,)), 'but 0 values'),
    ('string_splat', message(7, (2**20,), string_val=[b'a']), 'but 1 strings'),
    ('string_content', message(7, (1,), tensor_content=b'\x01a'), 'string_val only'),
  )
  def test_message_is_refused(self, proto, text):
    with self.assertRaisesRegex(tensors.TensorError, text):
      tensors.decode(proto)

  def test_unknown_rank_is_refused(self):
    proto = message(1, (), float_val=[1])
    proto.tensor_shape.unknown_rank = True
    with self.assertRaisesRegex(tensors.TensorError, 'no rank'):
      tensors.decode(proto)

  def test_limit_is_the_callers(self):
    proto = tensors.encode(np.zeros(11, np.float32))
    self.assertLen(tensors.decode(proto, max_elements=11), 11)
    with self.assertRaisesRegex(tensors.TensorError, 'limit of 10'):
      tensors.decode(proto, max_elements=10)

  def test_large_shape_is_refused_without_allocating(self):
    proto = message(1, (2**31,), float_val=[1])
    began = time.perf_counter()
    for _ in range(100):
      with self.assertRaises(tensors.TensorError):
        tensors.decode(proto)
    self.assertLess(time.perf_counter() - began, 1)

  def test_random_bytes_are_a_tensor_or_an_error(self):
    rng = np.random.default_rng(0)
    valid = tensors.encode(np.ones((3, 4), np.float32)).SerializeToString()
    outcomes = {'array': 0, 'error': 0}
    for _ in range(2000):
      content = bytearray(valid)
      for place in rng.integers(0, len(content), 3):
        content[place] = rng.integers(0, 256)
      proto = tensor_pb2.TensorProto()
      try:
        proto.ParseFromString(bytes(content))
      except protobuf_message.DecodeError:
        continue
      try:
        tensors.decode(proto)
        outcomes['array'] += 1
      except tensors.TensorError:
        outcomes['error'] += 1
    self.assertGreater(min(outcomes.values()), 10)


if __name__ == '__main__':
  absltest.main()
