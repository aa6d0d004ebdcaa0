import dataclasses

from absl.testing import absltest, parameterized

from pearl_tf.agents import training
from pearl_tf.agents.pearl import training as pearl_training
from pearl_tf.testing import test_case

COUNTS = [
  (cls, field.name)
  for cls in (training.Training, pearl_training.PearlTraining)
  for field in dataclasses.fields(cls)
  if field.type is int
]


class TrainingTest(test_case.TestCase):
  @parameterized.product(count=COUNTS, value=[0, -3, 2.5, '7', None])
  def test_every_count_is_a_positive_integer(self, count, value):
    cls, name = count
    with self.assertRaisesRegex(ValueError, f'{cls.__name__}.{name} must be a positive integer, g'):
      cls(**{name: value})

  @parameterized.parameters(
    (training.Training, 'export_interval'), (pearl_training.PearlTraining, 'replay_capacity')
  )
  def test_none_switches_off_and_zero_is_refused(self, cls, name):
    self.assertIsNone(getattr(cls(**{name: None}), name))
    with self.assertRaisesRegex(ValueError, f'{name} must be a positive integer or None, got 0'):
      cls(**{name: 0})

  def test_exports_come_at_the_interval_and_at_the_end(self):
    def exports(interval):
      sizes = training.Training(num_iterations=7, export_interval=interval)
      return [iteration for iteration in range(1, 8) if sizes.exports_after(iteration)]

    self.assertEqual(exports(3), [3, 6, 7])
    self.assertEqual(exports(7), [7])
    self.assertEqual(exports(100), [7])
    self.assertEqual(exports(None), [])


if __name__ == '__main__':
  absltest.main()
