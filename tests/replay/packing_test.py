"""Rows hold every value of an episode, and give each consumer its own reward."""

import numpy as np
import tensorflow as tf
from absl.testing import absltest, parameterized

from pearl_tf.data import types
from pearl_tf.replay import packing
from pearl_tf.testing import test_case


def _episode(num_steps: int) -> types.Episode:
  generator = np.random.default_rng(num_steps)

  def normal(*shape: int) -> np.ndarray:
    return generator.normal(size=shape).astype(np.float32)

  return types.Episode(
    observation=normal(num_steps, 3),
    action=normal(num_steps, 2),
    reward=normal(num_steps),
    context_reward=normal(num_steps),
    discount=(np.arange(num_steps) < num_steps - 1).astype(np.float32),
    next_observation=normal(num_steps, 3),
  )


class PackedLayoutTest(test_case.TestCase):
  def setUp(self):
    super().setUp()
    self.layout = packing.PackedLayout(3, 2)

  def test_width(self):
    self.assertEqual(self.layout.width, 11)
    self.assertEqual(packing.PackedLayout(20, 6).width, 49)

  @parameterized.parameters(1, 7)
  def test_round_trip_to_transitions_has_the_dense_reward(self, num_steps):
    episode = _episode(num_steps)
    unpack = tf.function(self.layout.unpack_transition)
    transition = unpack(tf.constant(self.layout.pack(episode)))
    for name in types.Transition._fields:
      self.assertAllEqual(getattr(transition, name), getattr(episode, name))

  def test_round_trip_to_context_has_the_context_reward(self):
    episode = _episode(6)
    rows = self.layout.pack(episode).reshape(2, 3, 11)
    context = tf.function(self.layout.unpack_context)(tf.constant(rows))
    self.assertAllEqual(context.reward, episode.context_reward.reshape(2, 3))
    self.assertAllEqual(context.observation, episode.observation.reshape(2, 3, 3))
    self.assertAllEqual(context.action, episode.action.reshape(2, 3, 2))
    self.assertAllEqual(context.next_observation, episode.next_observation.reshape(2, 3, 3))
    self.assertAllEqual(context.mask, np.ones([2, 3]))

  def test_terminal_transition_is_packed(self):
    rows = self.layout.pack(_episode(5))
    self.assertAllEqual(self.layout.unpack_transition(rows).discount, [1, 1, 1, 1, 0])

  def test_unknown_leading_dimension(self):
    spec = tf.TensorSpec([None, None, 11], tf.float32)
    concrete = tf.function(self.layout.unpack_context).get_concrete_function(spec)
    self.assertEqual(concrete.structured_outputs.observation.shape.as_list(), [None, None, 3])

  @parameterized.parameters('action', 'reward', 'context_reward', 'discount', 'next_observation')
  def test_short_field_is_named(self, name):
    episode = _episode(5)
    episode = episode._replace(**{name: getattr(episode, name)[:-1]})
    with self.assertRaisesRegex(ValueError, f'field {name} has shape .4'):
      self.layout.pack(episode)

  def test_wrong_width_is_named(self):
    with self.assertRaisesRegex(ValueError, r'observation has shape \(5, 4\), expected \(5, 3\)'):
      self.layout.pack(_episode(5)._replace(observation=np.zeros([5, 4], np.float32)))

  def test_scalar_field_with_an_extra_dimension_is_refused(self):
    with self.assertRaisesRegex(ValueError, r'reward has shape \(5, 1\), expected \(5,\)'):
      self.layout.pack(_episode(5)._replace(reward=np.zeros([5, 1], np.float32)))

  def test_empty_episode_is_refused(self):
    empty = types.Episode(*(values[:0] for values in _episode(2)))
    with self.assertRaisesRegex(ValueError, 'at least one transition'):
      self.layout.pack(empty)

  @parameterized.parameters(np.nan, np.inf)
  def test_value_that_is_not_finite_is_located(self, value):
    episode = _episode(5)
    episode.reward[3] = value
    with self.assertRaisesRegex(ValueError, f'holds {value} at step 3, packed column 5'):
      self.layout.pack(episode)

  def test_sizes_must_be_positive(self):
    with self.assertRaisesRegex(ValueError, 'observation_size must be positive, got 0'):
      packing.PackedLayout(0, 2)
    with self.assertRaisesRegex(ValueError, 'action_size must be positive, got -1'):
      packing.PackedLayout(3, -1)


if __name__ == '__main__':
  absltest.main()
