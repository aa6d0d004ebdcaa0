import numpy as np
import tensorflow as tf
from absl.testing import absltest, parameterized
from tensorflow.core.protobuf import meta_graph_pb2

from pearl_tf.testing import test_case
from serving import errors
from serving.model_server import batch_layout, signatures

FREE = -1


def signature(inputs, outputs=None):
  proto = meta_graph_pb2.SignatureDef()
  fields = [(proto.inputs, inputs), (proto.outputs, outputs or {'mean': (tf.float32, [FREE, 2])})]
  for entries, described in fields:
    for alias, (dtype, dims) in described.items():
      entries[alias].name, entries[alias].dtype = f'{alias}:0', dtype.as_datatype_enum
      for size in dims:
        entries[alias].tensor_shape.dim.add(size=size)
  return signatures.Signature(proto, 'any')


CONTEXT = {'context': (tf.float32, [FREE, FREE, 3]), 'num_transitions': (tf.int32, [FREE])}


def context(length, *lengths):
  rows = len(lengths)
  values = np.arange(1, rows * length * 3 + 1, dtype=np.float32).reshape(rows, length, 3)
  return {'context': values, 'num_transitions': np.array(lengths, np.int32)}


class BucketTest(test_case.TestCase):
  def setUp(self):
    super().setUp()
    self.layout = batch_layout.BatchLayout(signature(CONTEXT))

  @parameterized.parameters(
    (0, 16), (1, 16), (16, 16), (17, 32), (200, 256), (256, 256), (1000, 1024)
  )
  def test_powers_of_two(self, length, bucket):
    self.assertEqual(self.layout.bucket(context(length, 0, length)), bucket)

  @parameterized.parameters(-1, 5)
  def test_bad_length_stays_bad(self, length):
    # Padded to 8, a length of 5 would no longer exceed its sequence of 4.
    self.assertEqual(self.layout.bucket(context(4, 1, length)), ((4, 3), ()))

  def test_fixed_widths_are_one_bucket(self):
    layout = batch_layout.BatchLayout(signature({'x': (tf.float32, [FREE, 2])}))
    self.assertEqual(layout.bucket({'x': np.zeros([1, 2])}), ())

  def test_no_padding_without_lengths(self):
    layout = batch_layout.BatchLayout(signature({'x': (tf.float32, [FREE, FREE])}))
    self.assertEqual(layout.bucket({'x': np.zeros([1, 9])}), ((9,),))

  def test_no_padding_if_it_is_off(self):
    layout = batch_layout.BatchLayout(signature(CONTEXT), pad=False)
    self.assertEqual(layout.bucket(context(9, 1)), ((9, 3), ()))

  def test_no_padding_if_it_would_show_in_an_output(self):
    outputs = {'means': (tf.float32, [FREE, FREE, 2])}
    layout = batch_layout.BatchLayout(signature(CONTEXT, outputs))
    self.assertEqual(layout.bucket(context(9, 1)), ((9, 3), ()))


class RowsTest(test_case.TestCase):
  def test_must_agree(self):
    layout = batch_layout.BatchLayout(signature(CONTEXT))
    inputs = context(4, 1, 2)
    self.assertEqual(layout.rows(inputs), 2)
    inputs['num_transitions'] = np.zeros([1], np.int32)
    with self.assertRaisesRegex(errors.ServingError, 'must have equal 0th-dimension size'):
      layout.rows(inputs)


class StackTest(test_case.TestCase):
  def setUp(self):
    super().setUp()
    self.layout = batch_layout.BatchLayout(signature(CONTEXT))

  def test_pads_with_zeros(self):
    short, long = context(2, 2), context(4, 3, 4)
    batch = self.layout.stack([short, long])
    self.assertAllEqual(batch['num_transitions'], [2, 3, 4])
    self.assertAllEqual(batch['context'][0, :2], short['context'][0])
    self.assertAllEqual(batch['context'][0, 2:], np.zeros([2, 3]))
    self.assertAllEqual(batch['context'][1:], long['context'])

  def test_one_call_is_not_copied(self):
    call = context(2, 2)
    self.assertIs(self.layout.stack([call])['context'], call['context'])

  def test_fills_up_with_the_last_row(self):
    batch = self.layout.stack([context(2, 1), context(2, 2)], rows=4)
    self.assertAllEqual(batch['num_transitions'], [1, 2, 2, 2])
    self.assertEqual(batch['context'].shape, (4, 2, 3))

  def test_nothing_to_fill_up_with(self):
    batch = self.layout.stack([context(2)], rows=4)
    self.assertEqual(batch['context'].shape, (0, 2, 3))


class SplitTest(test_case.TestCase):
  def test_gives_each_call_its_rows(self):
    outputs = {'mean': np.arange(10).reshape(5, 2), 'status': np.arange(5)}
    first, second = batch_layout.split(outputs, [1, 3])
    self.assertAllEqual(first['mean'], [[0, 1]])
    self.assertAllEqual(first['status'], [0])
    self.assertAllEqual(second['mean'], [[2, 3], [4, 5], [6, 7]])
    self.assertAllEqual(second['status'], [1, 2, 3])

  @parameterized.parameters(([3],), ([],), ([2, 2],))
  def test_other_sizes_cannot_be_split(self, shape):
    outputs = {'mean': np.zeros(shape), 'status': np.zeros([4])}
    self.assertIsNone(batch_layout.split(outputs, [2, 2]))


if __name__ == '__main__':
  absltest.main()
