"""An experiment is a value: later configurations change nothing of it, however late it is built."""

import dataclasses

import gin
from absl.testing import absltest, parameterized

from pearl_tf.environments import meta_env
from pearl_tf.experiment import builder as builder_lib
from pearl_tf.experiment import config, experiment
from pearl_tf.testing import fakes, small_run, test_case

WALKER = str(small_run.ROOT / 'trainers' / 'configs' / 'walker_rand_params.gin')


@gin.configurable
class TunedLine(fakes.Line):
  """A family whose constructor passes on what its base takes."""

  def __init__(self, offset: float = 0.0, **kwargs):
    super().__init__(**kwargs)
    self.offset = offset


def load(*bindings: str, seed: int = 0) -> experiment.Experiment:
  return experiment.load([small_run.GIN_FILE], (*small_run.LINE, *bindings), seed=seed)


def widths(network) -> tuple[int, ...]:
  """Returns the number of units of every layer."""
  return tuple(v.shape[1] for v in network.variables if len(v.shape) == 2)


class ExperimentTest(test_case.TestCase):
  def test_two_in_one_process_do_not_mix(self):
    first = builder_lib.Builder(load('GaussianEncoder.latent_size = 3', 'make.reward_scale = 2.0'))
    second = builder_lib.Builder(
      load(
        "registry.make.name = 'pearl/PointRobot-v0'",
        'Training.max_episode_steps = 20',
        'GaussianEncoder.latent_size = 4',
        'LatentActor.hidden_units = (5,)',
        'LatentValue.hidden_units = (6,)',
        'PearlAgent.gamma = 0.5',
        'MetaTest.num_repeats = 7',
      )
    )
    # Everything is made late, and in turns.
    for builder, latent_size, units, domain, name in (
      (first, 3, (8, 8), (1, 1), 'Line'),
      (second, 4, (5,), (2, 2), 'PointRobot'),
    ):
      with self.subTest(name):
        self.assertEqual(builder.domain, domain)
        self.assertIn(name, builder.environments(2)[1].name)
        self.assertEqual(builder.agent.encoder.latent_size, latent_size)
        self.assertEqual(widths(builder.agent.actor)[:-1], units)
    self.assertEqual(first.environments(2)[1].gymnasium_env.unwrapped._reward_scale, 2.0)
    self.assertEqual((first.agent._gamma, second.agent._gamma), (0.99, 0.5))
    self.assertEqual(second.meta_test.num_repeats, 7)

  def test_reading_it_again_is_the_same(self):
    first = load('PearlAgent.gamma = 0.5', seed=3)
    self.assertEqual(config.load_text(first.text), first.text)

  def test_arguments_of_the_classes_below_stay(self):
    name = f"registry.make.name = '{__name__}:TunedLine'"
    first = load(name, 'TunedLine.offset = 1.5')
    load(name, 'TunedLine.offset = 2.5')
    made = first.make_environment()
    self.assertIsInstance(made, meta_env.MetaEnv)
    self.assertEqual(made.offset, 1.5)

  @parameterized.parameters(
    ('MujocoMetaEnv.legacy_masses = True', '_legacy_masses', True),
    ('RandParams.log_scale_limit = 0.5', '_log_scale_limit', 0.5),
  )
  def test_a_registered_family_takes_what_its_bases_take(self, binding, attribute, value):
    first = experiment.load([WALKER], [binding])
    experiment.load([WALKER])
    self.assertEqual(getattr(first.make_environment(), attribute), value)

  def test_networks_are_chosen_and_scoped(self):
    first = load(
      'PearlAgent.critic_class = @wide/LatentCritic',
      'wide/LatentCritic.hidden_units = (11,)',
    )
    load()
    agent = builder_lib.Builder(first).agent
    self.assertEqual(widths(agent.critics[1]), (11, 1))
    self.assertEqual(widths(agent.actor)[:-1], (8, 8))

  @parameterized.parameters('Gaussian', 'Recurrent')
  def test_nothing_that_is_built_reads_gin(self, encoder_name):
    bindings = [line.replace('Gaussian', encoder_name) for line in small_run.LINE]
    first = experiment.load(
      [small_run.GIN_FILE],
      [
        *bindings,
        f'PearlAgent.encoder_class = @{encoder_name}Encoder',
        'PearlAgent.entropy_weight_class = @AutomaticEntropyWeight',
        "PearlTraining.context_sampling = 'trajectories'",
        "MetaTest.context_sampling = 'trajectories'",
      ],
    )
    gin.clear_config()
    builder = builder_lib.Builder(first)
    builder.check()
    builder.environments(3)
    builder.make_rollout(deterministic=True, num_environments=2)
    # gin keeps account of every argument that it gave, or would have given had it been bound.
    given = [line for line in gin.operative_config_str().splitlines() if ' = ' in line]
    self.assertEmpty(given)

  def test_is_frozen(self):
    with self.assertRaises(dataclasses.FrozenInstanceError):
      load().seed = 1


if __name__ == '__main__':
  absltest.main()
