import gin
from absl.testing import absltest, parameterized

from pearl_tf.experiment import builder as builder_lib
from pearl_tf.experiment import config
from pearl_tf.experiment import experiment as experiment_lib
from pearl_tf.testing import small_run, test_case

FOLDER = small_run.ROOT / 'trainers' / 'configs'
TASKS = sorted((FOLDER / 'tasks').glob('*.gin'))
# Parts of other files.
METHODS = sorted((FOLDER / 'methods').glob('*.gin'))
CONFIGS = [path for path in sorted(FOLDER.rglob('*.gin')) if path not in TASKS + METHODS]
# What any method may include: which tasks, how long an episode is, and how the agent is tested.
OF_A_TASK = ('make.', 'sample_task_split.', 'MetaTest.', 'Training.max_episode_steps')

# The table of hyperparameters of the authors' code, with the defaults filled in.
COLUMNS = (
  'sample_task_split.num_train',
  'sample_task_split.num_test',
  'PearlTraining.meta_batch_size',
  'CollectSchedule.initial_steps',
  'CollectSchedule.tasks_per_iteration',
  'CollectSchedule.prior_steps',
  'CollectSchedule.posterior_steps',
  'CollectSchedule.extra_steps',
  'PearlTraining.gradient_steps_per_iteration',
  'MetaTest.num_repeats',
  'MetaTest.steps_per_repeat',
  'MetaTest.num_exploration_episodes',
  'PearlTraining.context_size',
  'Training.max_episode_steps',
  'PearlAgent.gamma',
  'PearlAgent.reward_scale',
  'PearlAgent.kl_weight',
  'PearlTraining.batch_size',
  'Training.num_iterations',
)
TABLE = {
  'cheetah_dir': (
    ('pearl/HalfCheetahDir-v0', 2, None, 4, 2000, 5, 1000, 0, 1000, 2000)
    + (4, 600, 2, 256, 200, 0.99, 5.0, 0.1, 256, 500)
  ),
  'cheetah_vel': (
    ('pearl/HalfCheetahVel-v0', 100, 30, 16, 2000, 5, 400, 0, 600, 2000)
    + (1, 600, 2, 100, 200, 0.99, 5.0, 0.1, 256, 500)
  ),
  'ant_dir': (
    ('pearl/AntDir-v0', 2, None, 4, 2000, 5, 400, 0, 600, 4000)
    + (4, 600, 2, 256, 200, 0.99, 5.0, 0.1, 256, 500)
  ),
  'ant_goal': (
    ('pearl/AntGoal-v0', 150, 30, 10, 2000, 5, 400, 0, 600, 4000)
    + (1, 600, 2, 256, 200, 0.99, 5.0, 1.0, 256, 500)
  ),
  'humanoid_dir': (
    ('pearl/HumanoidDir-v0', 100, 30, 16, 2000, 5, 400, 0, 600, 4000)
    + (1, 600, 2, 256, 200, 0.99, 5.0, 0.1, 256, 500)
  ),
  'walker_rand_params': (
    ('pearl/Walker2dRandParams-v0', 40, 10, 10, 2000, 5, 400, 0, 600, 4000)
    + (2, 600, 2, 100, 200, 0.99, 5.0, 0.1, 256, 500)
  ),
  'hopper_rand_params': (
    ('pearl/HopperRandParams-v0', 40, 10, 10, 2000, 5, 400, 0, 600, 4000)
    + (2, 600, 2, 100, 200, 0.99, 5.0, 0.1, 256, 500)
  ),
  'point_robot': (
    ('pearl/PointRobot-v0', 80, 20, 16, 200, 5, 200, 0, 200, 1000)
    + (2, 60, 1, 64, 20, 0.99, 100.0, 0.1, 256, 500)
  ),
  'sparse_point_robot': (
    ('pearl/SparsePointRobot-v0', 80, 20, 16, 200, 10, 100, 900, 0, 1000)
    + (2, 400, 5, 1024, 20, 0.9, 100.0, 1.0, 256, 500)
  ),
  # Beyond the authors' experiments: the numbers of garage's PEARL, on episodes of the benchmark.
  'metaworld_ml1': (
    ('pearl/MetaWorldML1-v0', 50, 10, 16, 4000, 15, 750, 0, 750, 4000)
    + (1, 1500, 2, 64, 500, 0.99, 10.0, 0.1, 256, 1000)
  ),
  'metaworld_ml10': (
    ('pearl/MetaWorldML10-v0', 500, 25, 16, 4000, 15, 750, 0, 750, 4000)
    + (1, 1500, 2, 64, 500, 0.99, 10.0, 0.1, 256, 1000)
  ),
  'metaworld_ml45': (
    ('pearl/MetaWorldML45-v0', 450, 25, 16, 4000, 15, 750, 0, 750, 4000)
    + (1, 1500, 2, 64, 500, 0.99, 10.0, 0.1, 256, 1000)
  ),
}
# Variants of these by their own account: they are built, but are not the authors' numbers.
VARIANTS = ('demo', 'cheetah_dir_sac', 'ant_rand_dir')


class ShippedConfigTest(test_case.TestCase):
  @parameterized.named_parameters((path.stem, path) for path in CONFIGS)
  def test_builds_and_uses_every_binding(self, path):
    builder = builder_lib.Builder(experiment_lib.load([path]))
    self.assertEqual(int(builder.agent.train_step_counter), 0)
    self.assertLen(builder.tasks.train, gin.query_parameter('sample_task_split.num_train'))
    held_out = gin.query_parameter('sample_task_split.num_test')
    self.assertLen(builder.tasks.test, held_out or len(builder.tasks.train))

  @parameterized.named_parameters((path.stem, path) for path in CONFIGS)
  def test_has_the_numbers_of_the_authors(self, path):
    is_variant = path.stem in VARIANTS or path.stem.endswith('_plus')
    if is_variant or path.parent.name in ('ablations', 'baselines'):
      self.assertIn('include', path.read_text())
      return
    config.load([str(path)])
    names = ('registry.make.name', *COLUMNS)
    actual = {name: gin.query_parameter(name) for name in names}
    self.assertEqual(actual, dict(zip(names, TABLE[path.stem], strict=True)))

  def test_a_task_says_nothing_of_the_method(self):
    for path in TASKS:
      config.load([path])
      for name in config.bound_names():
        self.assertStartsWith(name, OF_A_TASK, path.stem)
      self.assertIn(f"include 'tasks/{path.name}'", (FOLDER / path.name).read_text())

  def test_next_observations_are_shown_where_the_dynamics_vary(self):
    for path in CONFIGS:
      config.load([str(path)])
      shown = 'GaussianEncoder.use_next_observation = True' in gin.config_str()
      is_pearl = path.parent.name != 'baselines'
      self.assertEqual(shown, is_pearl and 'rand_params' in path.stem, path.stem)

  def test_the_resolved_text_is_the_whole_configuration(self):
    for path in CONFIGS:
      text = config.load([str(path)])
      self.assertNotIn('include', text)
      self.assertEqual(config.load_text(text), text)


if __name__ == '__main__':
  absltest.main()
