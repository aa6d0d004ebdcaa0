import numpy as np
import tensorflow as tf
from absl.testing import absltest, parameterized
from google.protobuf import message as protobuf_message
from tensorflow.core.framework import tensor_pb2, types_pb2

from pearl_tf.testing import test_case
from serving.server import tensors

DTYPES = (np.float32, np.int32, np.int64)
OTHERS = (np.float64, np.float16, np.int8, np.uint16, np.uint64, np.bool_)


def message(dtype: int, shape: tuple[int, ...], **fields) -> tensor_pb2.TensorProto:
  proto = tensor_pb2.TensorProto(dtype=dtype, **fields)
  for size in shape:
    proto.tensor_shape.dim.add().size = size
  return proto


def some(dtype: type, shape: tuple[int, ...]) -> np.ndarray:
  numbers = np.random.default_rng(0).integers(0, 120, shape)
  return (numbers > 60) if dtype is np.bool_ else numbers.astype(dtype)


class RoundTripTest(test_case.TestCase):
  @parameterized.product(
    dtype=DTYPES, as_content=(True, False), shape=((), (3,), (2, 0, 4), (5, 7, 2))
  )
  def test_array_survives_and_tensorflow_reads_the_same(self, dtype, as_content, shape):
    array = some(dtype, shape)
    proto = tensors.encode(array, as_content=as_content)
    decoded = tensors.decode(tensor_pb2.TensorProto.FromString(proto.SerializeToString()))
    self.assertEqual((decoded.dtype, decoded.shape), (np.dtype(dtype), shape))
    np.testing.assert_array_equal(decoded, array)
    np.testing.assert_array_equal(tf.io.parse_tensor(proto.SerializeToString(), proto.dtype), array)

  @parameterized.parameters(*DTYPES, *OTHERS)
  def test_reads_what_tensorflow_writes(self, dtype):
    array = some(dtype, (5, 7))
    np.testing.assert_array_equal(tensors.decode(tf.make_tensor_proto(array)), array)
    np.testing.assert_array_equal(tensors.decode(tensors.encode(array)), array)

  def test_strings(self):
    decoded = tensors.decode(tensors.encode(np.array([[b'a', b'\xff'], [b'', b'd']], object)))
    self.assertEqual(decoded.tolist(), [[b'a', b'\xff'], [b'', b'd']])

  @parameterized.parameters(True, False)
  def test_odd_numbers_and_orders_survive(self, as_content):
    for array in (
      np.array([np.nan, np.inf, -np.inf, -0.0] * 8, np.float32),
      np.array([2**63 - 1, -(2**63)], np.int64),
      np.arange(60, dtype=np.float32).reshape(6, 10).T[::2],
    ):
      decoded = tensors.decode(tensors.encode(array, as_content=as_content))
      self.assertEqual(decoded.tobytes(), array.tobytes())


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


class RefusalTest(test_case.TestCase):
  @parameterized.named_parameters(
    ('short_content', message(1, (2, 2), tensor_content=b'\0' * 12), 'has 12 bytes'),
    ('long_content', message(1, (2, 2), tensor_content=b'\0' * 17), 'has 17 bytes'),
    ('no_dtype', message(0, (1,), float_val=[1]), 'data type 0 is not supported'),
    ('unknown_dtype', message(99, (1,), float_val=[1]), 'data type 99'),
    ('reference_dtype', message(101, (1,), float_val=[1]), 'data type 101'),
    ('resource', message(types_pb2.DT_RESOURCE, (1,)), 'data type 20'),
    ('negative', message(1, (2, -1), float_val=[1]), 'negative'),
    ('rank', message(1, (1,) * 33, float_val=[1]), 'rank 33'),
    ('too_large', message(1, (2**22 + 1,), float_val=[1]), 'above the limit of 4194304'),
    ('overflow', message(1, (2**40, 2**40), float_val=[1]), 'above the limit'),
    ('large_beside_zero', message(1, (0, 2**62), float_val=[1]), 'above the limit'),
    ('splat', message(1, (2**16 + 1,), float_val=[1, 2]), 'but 2 values'),
    ('empty_splat', message(1, (2**20,)), 'but 0 values'),
    ('string_splat', message(7, (2**20,), string_val=[b'a']), 'but 1 values'),
    ('string_content', message(7, (1,), tensor_content=b'\x01a'), 'data type 7'),
  )
  def test_message_is_refused(self, proto, text):
    with self.assertRaisesRegex(tensors.TensorError, text):
      tensors.decode(proto)

  def test_unknown_rank_is_refused(self):
    proto = message(1, (), float_val=[1])
    proto.tensor_shape.unknown_rank = True
    with self.assertRaisesRegex(tensors.TensorError, 'no rank'):
      tensors.decode(proto)

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
