"""The signatures as a server runs them: a saved model in a session, fed without Python's checks."""

import pathlib
import tempfile

import numpy as np
import tensorflow as tf
from absl.testing import absltest, parameterized
from tensorflow.core.protobuf import config_pb2

from pearl_tf.data import types
from pearl_tf.export import exporter, row_status, serving_module
from pearl_tf.networks import actor as actor_lib
from pearl_tf.testing import exported_model, test_case

KINDS = ('gaussian', 'deterministic', 'linear_gaussian', 'recurrent')
ADDITIVE = KINDS[:2]
L = exported_model.LATENT_SIZE
OK, BAD, FOREIGN, RANGE = (
  row_status.OK,
  row_status.BAD_NUMBERS,
  row_status.FOREIGN_LATENT_TAG,
  row_status.NUM_TRANSITIONS_OUT_OF_RANGE,
)


class Served:
  """A servable in a session, every signature a callable from and to arrays."""

  def __init__(self, directory):
    self.graph = tf.Graph()
    self.session = tf.compat.v1.Session(graph=self.graph)
    with self.graph.as_default():
      meta_graph = tf.compat.v1.saved_model.load(self.session, ['serve'], str(directory))
    self.signatures = dict(meta_graph.signature_def)
    self._callables = {}

  def __call__(self, signature, **inputs):
    definition = self.signatures[signature]
    if signature not in self._callables:
      options = config_pb2.CallableOptions(
        feed=[definition.inputs[name].name for name in sorted(definition.inputs)],
        fetch=[definition.outputs[name].name for name in sorted(definition.outputs)],
      )
      self._callables[signature] = self.session._make_callable_from_options(options)
    outputs = self._callables[signature](*[inputs[name] for name in sorted(inputs)])
    # What only passes through the graph may come back in the memory it was given in.
    copies = [np.copy(values) for values in outputs]
    return dict(zip(sorted(definition.outputs), copies, strict=True))


def context_of(batch_size, length, *, seed=0, use_next_observation=False):
  width = 7 if use_next_observation else 5
  return np.random.default_rng(seed).normal(size=[batch_size, length, width]).astype(np.float32)


def columns(context, num_transitions):
  """Returns the context as the agent takes it."""
  mask = np.arange(context.shape[1]) < np.asarray(num_transitions)[:, np.newaxis]
  return types.ContextBatch(
    observation=tf.constant(context[..., :2]),
    action=tf.constant(context[..., 2:4]),
    reward=tf.constant(context[..., 4]),
    next_observation=tf.constant(context[..., 5:] if context.shape[2] > 5 else context[..., :2]),
    mask=tf.constant(mask.astype(np.float32)),
  )


def ints(*values):
  return np.array(values, np.int32)


def state_of(answer):
  return {name: answer[name] for name in ('eta', 'precision', 'count', 'latent_tag')}


class ServingModuleTestCase(test_case.TestCase):
  """Exports each kind once; `networks` and `served` are by kind."""

  @classmethod
  def setUpClass(cls):
    super().setUpClass()
    directory = cls.enterClassContext(tempfile.TemporaryDirectory())
    cls.networks, cls.served, cls.folder = {}, {}, {}
    for kind in KINDS:
      with_next = kind == 'deterministic'
      encoder, actor = exported_model.small_networks(encoder=kind, use_next_observation=with_next)
      folder = pathlib.Path(directory) / kind
      exporter.Exporter(
        exported_model.DOMAIN, folder, context_encoder=encoder, actor_network=actor
      ).export(exported_model.origin())
      cls.networks[kind] = encoder, actor
      cls.folder[kind] = folder
      cls.served[kind] = Served(folder / serving_module.PEARL / '1')

  def context(self, kind, batch_size, length, seed=0):
    return context_of(batch_size, length, seed=seed, use_next_observation=kind == 'deterministic')

  def encode(self, kind, context, num_transitions):
    return self.served[kind]('encode', context=context, num_transitions=ints(*num_transitions))

  def assertRowsEqual(self, first, second, rows, **tolerances):
    for name in first:
      self.assertAllClose(first[name][rows], second[name][rows], msg=name, **tolerances)


class EqualityTest(ServingModuleTestCase):
  @parameterized.parameters(*KINDS)
  def test_encode_is_the_agents_inference(self, kind):
    context, numbers = self.context(kind, 4, 6), [6, 3, 1, 0]
    answer = self.encode(kind, context, numbers)
    encoder, _ = self.networks[kind]
    expected = encoder.infer_posterior(columns(context, numbers))
    self.assertAllClose(answer['mean'], expected.mean, rtol=1e-5, atol=1e-6)
    self.assertAllClose(answer['variance'], expected.variance, rtol=1e-5, atol=1e-7)
    self.assertAllEqual(answer['count'], numbers)
    self.assertAllEqual(answer['status'], [OK] * 4)
    self.assertNotAllClose(answer['mean'][0], answer['mean'][1], atol=1e-3)

  @parameterized.parameters(*KINDS)
  def test_without_evidence_it_is_the_prior(self, kind):
    encoder, _ = self.networks[kind]
    prior = encoder.prior([2])
    for length in (0, 3):
      answer = self.encode(kind, self.context(kind, 2, length), [0, 0])
      self.assertAllClose(answer['mean'], prior.mean)
      self.assertAllClose(answer['variance'], prior.variance)
      self.assertAllEqual(answer['eta'], np.zeros([2, L]))
      self.assertAllEqual(answer['precision'], np.zeros([2, encoder.precision_size]))
    seeds = ints(3, 1, 4, 1).reshape(2, 2)
    z = self.served[kind]('sample_z', **state_of(answer), seed=seeds)['z']
    if kind == 'deterministic':
      self.assertAllEqual(z, np.zeros([2, L]))
    else:
      noise = [tf.random.stateless_normal([L], seed, alg='philox') for seed in seeds]
      self.assertAllClose(z, noise)

  @parameterized.parameters(*ADDITIVE)
  def test_seven_and_five_transitions_are_twelve(self, kind):
    context = self.context(kind, 2, 12)
    whole = self.encode(kind, context, [12, 12])
    part = self.encode(kind, context[:, :7], [7, 7])
    both = self.served[kind](
      'update', context=context[:, 7:], num_transitions=ints(5, 5), **state_of(part)
    )
    self.assertAllEqual(both['count'], [12, 12])
    for name in ('eta', 'precision', 'mean', 'variance'):
      self.assertAllClose(both[name], whole[name], rtol=2e-6, atol=1e-6, msg=name)

  @parameterized.parameters(*ADDITIVE)
  def test_order_does_not_matter(self, kind):
    context = self.context(kind, 1, 9)
    answer = self.encode(kind, context, [9])
    turned = self.encode(kind, context[:, ::-1], [9])
    self.assertAllClose(answer, turned, rtol=2e-6, atol=1e-6)

  def test_order_matters_to_the_recurrent_encoder(self):
    context = self.context('recurrent', 1, 9)
    answer = self.encode('recurrent', context, [9])
    turned = self.encode('recurrent', context[:, ::-1], [9])
    self.assertNotAllClose(answer['mean'], turned['mean'], atol=1e-4)

  @parameterized.parameters(*KINDS)
  def test_act_is_the_actors_mean_and_act_sample_its_draw(self, kind):
    generator = np.random.default_rng(1)
    observation = generator.normal(size=[3, 2]).astype(np.float32)
    z = generator.normal(size=[3, L]).astype(np.float32)
    tag = self.encode(kind, self.context(kind, 3, 1), [0] * 3)['latent_tag']
    _, actor = self.networks[kind]
    parameters, _ = actor((tf.constant(observation), tf.constant(z)))
    inputs = {'observation': observation, 'z': z, 'latent_tag': tag}
    answer = self.served[kind]('act', **inputs)
    self.assertAllClose(answer['action'], actor_lib.mean_action(parameters), atol=1e-6)
    self.assertGreater(np.ptp(answer['action']), 0.05)

    seeds = ints(1, 2, 3, 4, 5, 6).reshape(3, 2)
    noise = [tf.random.stateless_normal([2], seed, alg='philox') for seed in seeds]
    drawn = tf.tanh(parameters.mean + tf.exp(parameters.log_std) * tf.stack(noise))
    sampled = self.served[kind]('act_sample', **inputs, seed=seeds)
    self.assertAllClose(sampled['action'], drawn, atol=1e-6)
    self.assertNotAllClose(sampled['action'], answer['action'], atol=1e-3)

  @parameterized.parameters(*KINDS)
  def test_adapt_and_act_is_the_three_in_one(self, kind):
    context, numbers = self.context(kind, 3, 5), [5, 2, 0]
    observation = np.random.default_rng(2).normal(size=[3, 2]).astype(np.float32)
    seed = ints(1, 2, 3, 4, 5, 6).reshape(3, 2)
    served = self.served[kind]
    state = self.encode(kind, context, numbers)
    z = served('sample_z', **state_of(state), seed=seed)
    action = served('act', observation=observation, z=z['z'], latent_tag=z['latent_tag'])
    answer = served(
      'adapt_and_act',
      context=context,
      num_transitions=ints(*numbers),
      observation=observation,
      seed=seed,
    )
    self.assertAllClose(answer, state | z | action, rtol=1e-5, atol=1e-6)

  def test_a_row_draws_the_same_alone_and_in_any_place_of_a_batch(self):
    served = self.served['gaussian']
    state = state_of(self.encode('gaussian', self.context('gaussian', 4, 3), [3] * 4))
    seed = ints(7, 8, 7, 8, 1, 2, -5, 9).reshape(4, 2)
    together = served('sample_z', **state, seed=seed)['z']
    for row in range(4):
      one = {name: values[row : row + 1] for name, values in state.items()}
      alone = served('sample_z', **one, seed=seed[row : row + 1])['z']
      self.assertAllClose(alone[0], together[row], rtol=1e-6)
    order = [2, 0, 3, 1]
    moved = served('sample_z', **{n: v[order] for n, v in state.items()}, seed=seed[order])['z']
    self.assertAllClose(moved, together[order])

  def test_the_parts_compute_the_same(self):
    kind = 'gaussian'
    encoder = Served(self.folder[kind] / serving_module.ENCODER / '1')
    policy = Served(self.folder[kind] / serving_module.POLICY / '1')
    context = self.context(kind, 2, 3)
    answer = encoder('serving_default', context=context, num_transitions=ints(3, 3))
    self.assertAllClose(answer, self.encode(kind, context, [3, 3]))
    seed = ints(1, 2, 3, 4).reshape(2, 2)
    z = policy('sample_z', **state_of(answer), seed=seed)
    self.assertAllClose(z, self.served[kind]('sample_z', **state_of(answer), seed=seed))
    inputs = {
      'observation': np.ones([2, 2], np.float32),
      'z': z['z'],
      'latent_tag': z['latent_tag'],
    }
    self.assertAllClose(policy('serving_default', **inputs), self.served[kind]('act', **inputs))
    for served, names in ((encoder, 'encode update'), (policy, 'sample_z act act_sample')):
      expected = {*names.split(), 'serving_default', '__saved_model_init_op'}
      self.assertEqual(set(served.signatures), expected)


class FaultsTest(ServingModuleTestCase):
  @parameterized.parameters(*KINDS)
  def test_a_faulty_context_gets_the_prior_and_its_neighbours_do_not_notice(self, kind):
    context, numbers = self.context(kind, 7, 4), [4, 3, 4, -1, 5, 4, 4]
    context[0, 2, 1] = np.nan
    context[1, 3:] = np.nan  # Padding may hold anything.
    context[5, 0, 0] = np.inf
    if kind == 'gaussian':
      context[6, 0] = 3e38  # Finite, but too large for the network.
    with_faults = self.encode(kind, context, numbers)
    large = BAD if kind == 'gaussian' else OK
    self.assertAllEqual(with_faults['status'], [BAD, OK, OK, RANGE, RANGE, BAD, large])
    fine = self.encode(kind, self.context(kind, 7, 4), [4, 3, 4, 0, 0, 0, 4])
    self.assertRowsEqual(
      {**with_faults, 'status': fine['status']}, fine, [1, 2, 3, 4], rtol=1e-6, atol=1e-6
    )
    for row in (0, 3, 4, 5):
      self.assertAllEqual(with_faults['eta'][row], np.zeros(L))
      self.assertEqual(with_faults['count'][row], 0)
      self.assertAllClose(with_faults['mean'][row], fine['mean'][3])

  @parameterized.parameters(*ADDITIVE)
  def test_a_faulty_update_leaves_the_state_as_it_was(self, kind):
    state = state_of(self.encode(kind, self.context(kind, 8, 3), [3] * 8))
    state = {name: values.copy() for name, values in state.items()}
    new, numbers = self.context(kind, 8, 2, seed=1), [2, 2, 9, 2, 2, 2, 2, 2]
    new[1, 0, 0] = np.nan
    state['latent_tag'][3] += 1
    state['precision'][4, 0] = -1
    state['eta'][5, 0] = np.inf
    state['count'][6] = -2
    state['precision'][7, 2] = 0  # With evidence there is some of every component.
    answer = self.served[kind]('update', context=new, num_transitions=ints(*numbers), **state)
    self.assertAllEqual(answer['status'], [OK, BAD, RANGE, FOREIGN, BAD, BAD, BAD, BAD])
    for name, values in state.items():
      self.assertAllEqual(answer[name][1:], values[1:], name)
    self.assertEqual(answer['count'][0], 5)
    self.assertNotAllClose(answer['eta'][0], state['eta'][0])
    self.assertAllEqual(np.isnan(answer['mean']).all(axis=1), [False] * 4 + [True] * 4)
    self.assertAllEqual(np.isnan(answer['mean']).any(axis=1), [False] * 4 + [True] * 4)
    self.assertAllClose(
      self.served[kind](
        'update',
        context=new[:1],
        num_transitions=ints(2),
        **{name: values[:1] for name, values in state.items()},
      )['mean'][0],
      answer['mean'][0],
      rtol=1e-5,
    )

  def test_sums_that_overflow_are_bad_numbers(self):
    state = state_of(self.encode('gaussian', self.context('gaussian', 1, 3), [3]))
    huge = np.full([1, L], np.finfo(np.float32).max, np.float32)
    answer = self.served['gaussian'](
      'update',
      context=self.context('gaussian', 1, 2),
      num_transitions=ints(2),
      **{**state, 'precision': huge, 'eta': huge},
    )
    self.assertEqual(answer['status'][0], BAD)
    self.assertAllEqual(answer['eta'], huge)

  def test_a_recurrent_encoder_refuses_update_and_says_why(self):
    state = state_of(self.encode('recurrent', self.context('recurrent', 1, 3), [3]))
    with self.assertRaisesRegex(
      tf.errors.InvalidArgumentError,
      'update is not supported: the recurrent encoder.*Send the whole context to encode',
    ):
      self.served['recurrent'](
        'update', context=self.context('recurrent', 1, 2), num_transitions=ints(2), **state
      )

  def test_faulty_latents_and_observations_give_nan_in_their_row_only(self):
    served = self.served['gaussian']
    state = state_of(self.encode('gaussian', self.context('gaussian', 4, 3), [3] * 4))
    state = {name: values.copy() for name, values in state.items()}
    seed = ints(*range(8)).reshape(4, 2)
    fine = served('sample_z', **state, seed=seed)
    state['latent_tag'][1] = 0
    state['eta'][2, 0] = np.nan
    state['count'][3] = -1
    answer = served('sample_z', **state, seed=seed)
    self.assertAllEqual(answer['status'], [OK, FOREIGN, BAD, BAD])
    self.assertAllClose(answer['z'][0], fine['z'][0])
    self.assertTrue(np.isnan(answer['z'][1:]).all())

    observation = np.random.default_rng(0).normal(size=[5, 2]).astype(np.float32)
    inputs = {
      'observation': observation,
      'z': np.concatenate([fine['z'], fine['z'][:1]]),
      'latent_tag': np.concatenate([fine['latent_tag'], fine['latent_tag'][:1]]),
    }
    for signature, extra in (('act', {}), ('act_sample', {'seed': ints(*[1] * 10).reshape(5, 2)})):
      expected = served(signature, **inputs, **extra)['action']
      broken = {name: values.copy() for name, values in inputs.items()}
      broken['observation'][1, 0] = np.inf
      broken['z'][2, 3] = np.nan
      broken['latent_tag'][3] += 1
      broken['z'][3] = np.nan  # As sample_z answers it: the tag is still what is reported.
      broken['observation'][4, 1] = -np.inf
      answer = served(signature, **broken, **extra)
      self.assertAllEqual(answer['status'], [OK, BAD, BAD, FOREIGN, BAD])
      self.assertAllClose(answer['action'][0], expected[0])
      self.assertTrue(np.isnan(answer['action'][1:]).all())

  def test_adapt_and_act_reports_the_context_first(self):
    context = self.context('gaussian', 4, 3)
    context[1, 0, 0] = np.nan
    observation = np.zeros([4, 2], np.float32)
    observation[3, 0] = np.nan
    answer = self.served['gaussian'](
      'adapt_and_act',
      context=context,
      num_transitions=ints(3, 3, 4, 3),
      observation=observation,
      seed=ints(*[0] * 8).reshape(4, 2),
    )
    self.assertAllEqual(answer['status'], [OK, BAD, RANGE, BAD])
    self.assertAllEqual(np.isnan(answer['z']).all(axis=1), [False, True, True, False])
    self.assertAllEqual(np.isnan(answer['action']).all(axis=1), [False, True, True, True])
    self.assertAllEqual(answer['count'], [3, 0, 0, 3])

  def test_a_state_of_another_export_is_foreign(self):
    other = exported_model.export_small(self.temp_dir(), seed=1)
    served = Served(other / serving_module.PEARL / '1')
    state = state_of(self.encode('gaussian', self.context('gaussian', 1, 3), [3]))
    answer = served('sample_z', **state, seed=ints(1, 2).reshape(1, 2))
    self.assertAllEqual(answer['status'], [FOREIGN])

  @parameterized.named_parameters(
    ('context_width', 'encode', {'context': np.zeros([2, 3, 6], np.float32)}, 'compatible'),
    ('context_rank', 'encode', {'context': np.zeros([2, 5], np.float32)}, 'compatible'),
    ('num_transitions', 'encode', {'num_transitions': ints(1)}, 'same number of rows'),
    ('eta_width', 'update', {'eta': np.zeros([2, 4], np.float32)}, 'compatible'),
    ('eta_rows', 'update', {'eta': np.zeros([1, L], np.float32)}, 'same number of rows'),
    ('count_rows', 'sample_z', {'count': ints(1)}, 'same number of rows'),
    ('seed_width', 'sample_z', {'seed': np.zeros([2, 3], np.int32)}, 'compatible'),
    ('seed_rows', 'sample_z', {'seed': np.zeros([3, 2], np.int32)}, 'same number of rows'),
    ('observation', 'act', {'observation': np.zeros([2, 3], np.float32)}, 'compatible'),
    ('z_rows', 'act', {'z': np.zeros([1, L], np.float32)}, 'same number of rows'),
    ('tag_rows', 'act_sample', {'latent_tag': np.zeros([1], np.int64)}, 'same number of rows'),
    (
      'observation_rows',
      'adapt_and_act',
      {'observation': np.zeros([1, 2], np.float32)},
      'same number of rows',
    ),
  )
  def test_wrong_shapes_are_invalid_arguments(self, signature, wrong, message):
    right = {
      'context': np.zeros([2, 3, 5], np.float32),
      'num_transitions': ints(1, 1),
      'eta': np.zeros([2, L], np.float32),
      'precision': np.zeros([2, L], np.float32),
      'count': ints(0, 0),
      'latent_tag': np.zeros([2], np.int64),
      'seed': np.zeros([2, 2], np.int32),
      'observation': np.zeros([2, 2], np.float32),
      'z': np.zeros([2, L], np.float32),
    }
    inputs = {name: right[name] for name in serving_module.INPUTS[signature]}
    self.served['gaussian'](signature, **inputs)
    with self.assertRaisesRegex(tf.errors.InvalidArgumentError, message):
      self.served['gaussian'](signature, **{**inputs, **wrong})

  def test_a_call_without_rows_is_answered(self):
    answer = self.encode('gaussian', self.context('gaussian', 0, 3), [])
    self.assertEqual(answer['mean'].shape, (0, L))
    answer = self.served['gaussian'](
      'sample_z', **state_of(answer), seed=np.zeros([0, 2], np.int32)
    )
    self.assertEqual(answer['z'].shape, (0, L))


if __name__ == '__main__':
  absltest.main()
