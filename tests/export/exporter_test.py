"""What lies in an export directory: versions, manifest, warm-up records, server configuration."""

import json
import pathlib
import tempfile

import numpy as np
import tensorflow as tf
from absl.testing import absltest, parameterized
from google.protobuf import text_format
from tensorflow_serving.apis import prediction_log_pb2
from tensorflow_serving.config import model_server_config_pb2
from tf_agents.policies import py_tf_eager_policy
from tf_agents.trajectories import time_step as ts

from pearl_tf.data import specs, types
from pearl_tf.export import exporter, manifest, serving_module, warmup
from pearl_tf.networks import encoder as encoder_lib
from pearl_tf.policies import latent_policy
from pearl_tf.testing import exported_model, test_case


def records(version_dir):
  logs = []
  for record in tf.data.TFRecordDataset(str(version_dir / warmup.FILE)).as_numpy_iterator():
    logs.append(prediction_log_pb2.PredictionLog.FromString(record))
  return [log.predict_log.request for log in logs]


class ExporterTest(test_case.TestCase):
  @classmethod
  def setUpClass(cls):
    super().setUpClass()
    cls.root = pathlib.Path(cls.enterClassContext(tempfile.TemporaryDirectory()))
    cls.encoder, cls.actor = exported_model.small_networks()
    cls.policy = latent_policy.LatentPolicy(
      exported_model.DOMAIN,
      context_encoder=cls.encoder,
      actor_network=cls.actor,
      deterministic=True,
    )
    cls.exporter = exporter.Exporter(
      exported_model.DOMAIN,
      cls.root,
      context_encoder=cls.encoder,
      actor_network=cls.actor,
      policy=cls.policy,
      train_step=tf.Variable(5, dtype=tf.int64),
    )
    cls.exporter.export(exported_model.origin())
    cls.first_bias = cls.actor.variables[-1].numpy()
    cls.actor.variables[-1].assign_add([0.5] * 4)
    cls.encoder.variables[-1].assign_add([0.1] * 10)
    cls.exporter.export(exported_model.origin(seed=1))

  def load(self, version, name=serving_module.PEARL):
    return tf.saved_model.load(str(self.root / name / str(version))).signatures

  def manifest(self, version, name=serving_module.PEARL):
    return json.loads((self.root / name / str(version) / manifest.FILE).read_text())

  def test_each_version_has_the_weights_of_its_time(self):
    observation = np.array([[0.3, -0.2]], np.float32)
    z = np.ones([1, 5], np.float32)
    parameters, _ = self.actor((observation, z))
    for version, shift in ((1, -0.5), (2, 0.0)):
      tag = tf.constant([self.manifest(version)['latent_tag']], tf.int64)
      answer = self.load(version)['act'](
        observation=tf.constant(observation), z=tf.constant(z), latent_tag=tag
      )
      self.assertAllEqual(answer['status'], [0])
      self.assertAllClose(answer['action'], tf.tanh(parameters.mean + shift), atol=1e-6)

  def test_manifest(self):
    values = self.manifest(2)
    signatures = values.pop('signatures')
    tags = {self.manifest(version)['latent_tag'] for version in (1, 2)}
    self.assertLen(tags, 2)
    self.assertIn(values.pop('latent_tag'), tags)
    self.assertLen(values.pop('gin_config_sha256'), 64)
    self.assertEqual(values.pop('pearl_tf'), manifest.version_lib.__version__)
    self.assertEqual(
      values,
      {
        'model': 'pearl',
        'env_name': 'pearl/PointRobot-v0',
        'observation_size': 2,
        'action_size': 2,
        'latent_size': 5,
        'context_size_per_transition': 5,
        'uses_next_observation': False,
        'action_bounds': [-1.0, 1.0],
        'env_action_bounds': {'low': [-0.1, -0.1], 'high': [0.1, 0.1]},
        'env_action_names': ['dx', 'dy'],
        'env_observation_names': ['x', 'y'],
        'encoder': 'gaussian',
        'supports_update': True,
        'seed': 1,
        'train_step': 100,
        'env_steps': 1000,
      },
    )
    self.assertEqual(set(signatures), {*serving_module.INPUTS, 'serving_default'})
    self.assertEqual(
      signatures['act'],
      {
        'inputs': {
          'latent_tag': {'dtype': 'int64', 'shape': [None]},
          'observation': {'dtype': 'float32', 'shape': [None, 2]},
          'z': {'dtype': 'float32', 'shape': [None, 5]},
        },
        'outputs': {
          'action': {'dtype': 'float32', 'shape': [None, 2]},
          'status': {'dtype': 'int32', 'shape': [None]},
        },
      },
    )
    for name, described in signatures.items():
      for side in described.values():
        self.assertNotEmpty(side, name)
        self.assertTrue(all(tensor['shape'][:1] == [None] for tensor in side.values()), name)

  def test_the_latent_tag_depends_on_run_step_and_weights(self):
    origin = exported_model.origin()
    variable = tf.Variable([1.0, 2.0])
    tags = [manifest.latent_tag(origin, [variable])]
    self.assertEqual(manifest.latent_tag(origin, [variable]), tags[0])
    tags.append(manifest.latent_tag(origin._replace(train_step=1), [variable]))
    tags.append(manifest.latent_tag(origin._replace(seed=1), [variable]))
    variable.assign([1.0, 2.5])
    tags.append(manifest.latent_tag(origin, [variable]))
    self.assertLen(set(tags), 4)
    self.assertTrue(all(0 < tag < 2**63 for tag in tags))

  def test_every_warmup_record_is_answered_without_a_fault(self):
    for name, (signatures, _) in serving_module.SERVABLES.items():
      served = self.load(2, name)
      requests = records(self.root / name / '2')
      seen = {request.model_spec.signature_name for request in requests}
      self.assertEqual(seen, {*signatures, 'serving_default'})
      self.assertLen(requests, len(seen))
      for request in requests:
        self.assertEqual(request.model_spec.name, name)
        inputs = {key: tf.constant(tf.make_ndarray(value)) for key, value in request.inputs.items()}
        answer = served[request.model_spec.signature_name](**inputs)
        self.assertAllEqual(answer['status'], np.zeros_like(answer['status']))

  def test_server_configuration(self):
    text = (self.root / 'models.config').read_text()
    config = text_format.Parse(text, model_server_config_pb2.ModelServerConfig())
    models = {model.name: model for model in config.model_config_list.config}
    self.assertEqual(set(models), set(serving_module.SERVABLES))
    for name, model in models.items():
      self.assertEqual(model.base_path, name)  # A copy elsewhere serves as it is.
      self.assertEqual(model.model_version_policy.latest.num_versions, 2)
    batching = (self.root / 'batching.config').read_text()
    self.assertIn('pad_variable_length_inputs: true', batching)
    self.assertIn('max_batch_size { value: 64 }', batching)
    # With them one request of no rows ends a stock server.
    self.assertNotIn('allowed_batch_sizes', batching)

  def test_tf_agents_own_export_acts_alike(self):
    saved = py_tf_eager_policy.SavedModelPyTFEagerPolicy(
      str(self.root / 'policy_saver' / '2'),
      time_step_spec=self.policy.time_step_spec,
      action_spec=self.policy.action_spec,
      policy_state_spec=self.policy.policy_state_spec,
    )
    self.assertEqual(saved.get_train_step(), 5)
    generator = np.random.default_rng(0)
    observation = generator.normal(size=[4, 2]).astype(np.float32)
    z = generator.normal(size=[4, 5]).astype(np.float32)
    prior = types.Posterior(*(x.numpy() for x in self.encoder.prior([1])))
    actions = []
    for row in range(4):  # It takes one session at a time.
      step = ts.TimeStep(np.int32(1), np.float32(0), np.float32(1), observation[row])
      state = types.PolicyState(latent=z[row : row + 1], posterior=prior)
      actions.append(saved.action(step, state).action)
    tag = self.manifest(2)['latent_tag']
    answer = self.load(2)['act'](
      observation=tf.constant(observation),
      z=tf.constant(z),
      latent_tag=tf.fill([4], tf.constant(tag, tf.int64)),
    )
    self.assertAllClose(actions, answer['action'], atol=1e-6)
    self.assertGreater(np.ptp(actions), 0.05)


class PriorAsFactor(encoder_lib.GaussianEncoder):
  """An author's own encoder: the prior is one of the factors."""

  def belief(self, statistics):
    precision = statistics.precision + 1.0
    return types.Posterior(statistics.precision_mean / precision, 1.0 / precision)


class Forgetful(encoder_lib.GaussianEncoder):
  """Depends on what it was called with before, which a graph keeps no account of."""

  calls = 0

  def statistics(self, context):
    self.calls += 1
    found = super().statistics(context)
    return found._replace(precision_mean=found.precision_mean + float(self.calls))


class NoPrecision(encoder_lib.GaussianEncoder):
  """Says something that a server takes for damaged."""

  def statistics(self, context):
    found = super().statistics(context)
    return found._replace(precision=tf.zeros_like(found.precision))


class OwnEncoderTest(test_case.TestCase):
  def export(self, cls):
    context_encoder = cls(
      specs.context_spec(exported_model.DOMAIN), latent_size=5, hidden_units=(8,)
    )
    context_encoder.create_variables()
    _, actor = exported_model.small_networks()
    folder = self.temp_dir() / 'export'
    target = exporter.Exporter(
      exported_model.DOMAIN, folder, context_encoder=context_encoder, actor_network=actor
    )
    target.export(exported_model.origin())
    return context_encoder, tf.saved_model.load(folder / 'pearl' / '1')

  def test_is_served_as_it_is(self):
    context_encoder, served = self.export(PriorAsFactor)
    context = np.random.default_rng(0).normal(size=[3, 6, 5]).astype(np.float32)
    numbers = np.int32([6, 2, 0])
    answer = served.signatures['encode'](
      context=tf.constant(context), num_transitions=tf.constant(numbers)
    )
    observation, action, reward = np.split(context, [2, 4], axis=-1)
    mask = np.arange(6) < numbers[:, np.newaxis]
    belief = context_encoder.infer_posterior(
      types.ContextBatch(
        observation, action, reward[..., 0], np.zeros_like(observation), np.float32(mask)
      )
    )
    self.assertAllClose(answer['variance'], belief.variance, rtol=1e-5)
    self.assertAllClose(answer['mean'], belief.mean, rtol=1e-4, atol=1e-6)
    self.assertAllLess(answer['variance'][:2], 0.5)

  @parameterized.parameters(
    (Forgetful, 'Forgetful infers another mean'), (NoPrecision, 'NoPrecision.statistics.*positive')
  )
  def test_what_would_be_served_otherwise_is_refused(self, cls, message):
    with self.assertRaisesRegex(exporter.ExportError, message):
      self.export(cls)


class RecurrentExportTest(test_case.TestCase):
  def test_update_is_marked_and_not_warmed_up(self):
    root = exported_model.export_small(self.temp_dir(), encoder='recurrent')
    values = json.loads((root / 'pearl' / '1' / manifest.FILE).read_text())
    self.assertEqual((values['encoder'], values['supports_update']), ('recurrent', False))
    self.assertIn('update', values['signatures'])
    names = {request.model_spec.signature_name for request in records(root / 'pearl' / '1')}
    self.assertEqual(names, {*serving_module.INPUTS, 'serving_default'} - {'update'})


if __name__ == '__main__':
  absltest.main()
