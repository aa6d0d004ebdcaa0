import numpy as np
import tensorflow as tf
from absl.testing import absltest, parameterized

from pearl_tf.data import types
from pearl_tf.networks import actor as actor_lib
from pearl_tf.testing import exported_model, test_case
from serving.verification import export_folder, golden, golden_run, graph_index, proof

SEED = 3


def true_posterior(encoder, inputs):
  """Returns what the encoder in this process makes of the inputs of `encode`."""
  size, action_size = exported_model.DOMAIN
  observation, action, reward = np.split(inputs['context'], [size, size + action_size], axis=-1)
  steps = np.arange(inputs['context'].shape[1])
  context = types.ContextBatch(
    observation=tf.constant(observation),
    action=tf.constant(action),
    reward=tf.constant(reward[..., 0]),
    next_observation=tf.zeros_like(observation),
    mask=tf.constant(steps < inputs['num_transitions'][:, np.newaxis], tf.float32),
  )
  return encoder.infer_posterior(context)


class AgentTest(test_case.TestCase):
  """The real export: fit to be served, and its answers are those of the agent it came from."""

  @parameterized.named_parameters(
    *((name, name) for name in ('gaussian', 'deterministic', 'recurrent'))
  )
  def test_export_is_proven(self, encoder):
    folder = exported_model.export_small(self.temp_dir(), encoder=encoder)
    self.assertEqual(export_folder.config_problems(folder), [])
    version_dirs = export_folder.version_dirs(folder)
    self.assertEqual(
      [path.parent.name for path in version_dirs], ['pearl', 'pearl_encoder', 'pearl_policy']
    )
    for version_dir in version_dirs:
      result = proof.prove(version_dir)
      self.assertEqual([check.problems for check in result.checks if check.problems], [])
      self.assertGreaterEqual(len(result.checks), 7)

  @parameterized.named_parameters(
    *((name, name) for name in ('gaussian', 'deterministic', 'recurrent'))
  )
  def test_c_api_answers_as_the_agent(self, encoder):
    folder = exported_model.export_small(self.temp_dir(), seed=SEED, encoder=encoder)
    networks = exported_model.small_networks(seed=SEED, encoder=encoder)
    version_dir = folder / 'pearl' / '1'
    index = graph_index.GraphIndex(graph_index.read(version_dir))
    calls = [
      call
      for call in golden.recorded_calls(version_dir)
      if call.signature_name in ('encode', 'act')
    ]
    self.assertEqual({call.signature_name for call in calls}, {'encode', 'act'})
    for call, answer in zip(calls, golden_run.run(version_dir, index, calls), strict=True):
      self.assertAllEqual(answer.outputs['status'], np.zeros_like(answer.outputs['status']))
      if call.signature_name == 'encode':
        belief = true_posterior(networks[0], call.inputs)
        self.assertAllClose(answer.outputs['mean'], belief.mean, rtol=1e-5, atol=1e-5)
        self.assertAllClose(answer.outputs['variance'], belief.variance, rtol=1e-5, atol=1e-6)
      else:
        parameters, _ = networks[1]((call.inputs['observation'], call.inputs['z']))
        action = actor_lib.mean_action(parameters)
        self.assertAllClose(answer.outputs['action'], action, rtol=1e-5, atol=1e-6)
        self.assertGreater(np.ptp(answer.outputs['action']), 0.01)


if __name__ == '__main__':
  absltest.main()
