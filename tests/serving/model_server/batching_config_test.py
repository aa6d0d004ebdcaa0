import grpc
from absl.testing import absltest, parameterized

from pearl_tf.testing import test_case
from serving import errors
from serving.model_server import batching_config


class BatchingConfigTest(test_case.TestCase):
  def test_reads_the_file_of_tensorflow_serving(self):
    config = batching_config.from_text("""
      max_batch_size { value: 64 }
      batch_timeout_micros { value: 0 }
      max_enqueued_batches { value: 100 }
      num_batch_threads { value: 2 }
      thread_pool_name { value: "batches" }
      allowed_batch_sizes: 1
      allowed_batch_sizes: 64
      pad_variable_length_inputs: true
    """)
    self.assertEqual(
      config,
      batching_config.BatchingConfig(
        max_batch_size=64,
        max_call_size=64,
        allowed_batch_sizes=(1, 64),
        max_queued_calls=6400,
        pad_variable_length_inputs=True,
        num_threads=2,
      ),
    )

  def test_defaults_are_those_of_tensorflow_serving(self):
    config = batching_config.from_text('')
    self.assertEqual((config.max_batch_size, config.max_queued_calls), (1000, 10_000))
    self.assertFalse(config.pad_variable_length_inputs)

  def test_large_calls_where_they_would_be_split(self):
    config = batching_config.from_text("""
      max_batch_size { value: 256 }
      enable_large_batch_splitting { value: true }
      max_execution_batch_size { value: 32 }
      allowed_batch_sizes: 32
    """)
    self.assertEqual((config.max_batch_size, config.max_call_size), (32, 256))

  @parameterized.parameters(
    ('max_batch_size: 3', 'BatchingParameters'),
    ('nonsense { value: 1 }', 'BatchingParameters'),
    ('max_batch_size { value: 0 }', 'max_batch_size must be positive, got 0'),
    ('num_batch_threads { value: -1 }', 'num_threads must be positive, got -1'),
    ('max_batch_size { value: 8 } allowed_batch_sizes: 4', 'must equal max_batch_size, 8'),
    ('max_batch_size { value: 4 } allowed_batch_sizes: [4, 4]', 'must ascend'),
    ('max_batch_size { value: 4 } allowed_batch_sizes: [0, 4]', 'must ascend'),
  )
  def test_refuses(self, text, message):
    with self.assertRaisesRegex(errors.ServingError, message) as caught:
      batching_config.from_text(text)
    self.assertIs(caught.exception.code, grpc.StatusCode.INVALID_ARGUMENT)

  def test_time_inline_is_not_negative(self):
    with self.assertRaisesRegex(errors.ServingError, 'inline_seconds must be >= 0'):
      batching_config.BatchingConfig(inline_seconds=-1.0)


if __name__ == '__main__':
  absltest.main()
