import contextlib
import pathlib

import gin
from absl.testing import absltest, parameterized

from pearl_tf.experiment import config, local_loop
from pearl_tf.experiment import experiment as experiment_lib
from pearl_tf.networks import encoder
from pearl_tf.testing import small_run, test_case


class LoadTest(test_case.TestCase):
  def test_bindings_override_files_and_later_files_earlier_ones(self):
    folder = self.temp_dir()
    first, second = folder / 'first.gin', folder / 'second.gin'
    first.write_text('Training.num_iterations = 1\nTraining.batch_size = 2\n')
    second.write_text('Training.num_iterations = 3\n')
    config.load([str(first), str(second)], ['PearlTraining.batch_size = 4'])
    self.assertEqual(gin.query_parameter('Training.num_iterations'), 3)
    self.assertEqual(gin.query_parameter('PearlTraining.batch_size'), 4)

  def test_the_text_does_not_depend_on_where_a_binding_came_from(self):
    file = self.temp_dir() / 'a.gin'
    file.write_text('# Comments go.\nTraining.num_iterations = 1\nTraining.batch_size=2\n')
    from_file = config.load([str(file)])
    from_flags = config.load([], ['PearlTraining.batch_size = 2', 'Training.num_iterations = 1'])
    self.assertEqual(from_file, from_flags)

  def test_nothing_stays_of_what_was_loaded_before(self):
    config.load([], ['Training.num_iterations = 1'])
    config.load([], [])
    with self.assertRaises(ValueError):
      gin.query_parameter('Training.num_iterations')

  @parameterized.parameters(
    ('Training.num_iteratons = 3', "'Training' doesn't have a parameter named 'num_iteratons'"),
    ('Trainning.num_iterations = 3', "No configurable matching 'Trainning'"),
    ('Training.num_iterations 3', 'Training.num_iterations 3'),
    ('Training.num_iterations = three', 'three'),
    ('Actor.hidden_units = (8,)', "'Actor'"),
    ('PearlAgent.seed = 3', "'PearlAgent'.*'seed'"),
    ('PearlAgent.encoder_class = @NoEncoder', "No configurable matching reference '@NoEncoder'"),
    ("include 'nowhere.gin'", 'nowhere.gin'),
    ('import no_such_module', 'no_such_module'),
  )
  def test_an_error_in_a_binding_or_a_file_is_named(self, line, message):
    with self.assertRaisesRegex(config.ConfigError, message):
      config.load([], [line])
    file = self.temp_dir() / 'typo.gin'
    file.write_text(f'PearlTraining.batch_size = 2\n{line}\n')
    with self.assertRaisesRegex(config.ConfigError, message):
      config.load([str(file)])

  def test_a_missing_file_is_named(self):
    with self.assertRaisesRegex(config.ConfigError, r"no gin file 'nope\.gin'.*trainers/configs"):
      config.load(['nope.gin'])


class FilesTest(test_case.TestCase):
  def setUp(self):
    super().setUp()
    self.folder = self.temp_dir()
    (self.folder / 'sub').mkdir()

  def write(self, name: str, *lines: str) -> pathlib.Path:
    path = self.folder / name
    path.write_text('\n'.join(lines))
    return path

  def test_includes_are_found_beside_their_file_and_among_the_shipped_ones(self):
    self.write('more.gin', "include 'sub/other.gin'", 'PearlTraining.batch_size = 7')
    self.write('sub/other.gin', 'PearlTraining.meta_batch_size = 9', 'PearlTraining.batch_size = 8')
    mine = self.write(
      'sub/mine.gin',
      "include 'ablations/cheetah_vel_recurrent.gin'",
      'include "../more.gin"',
      'PearlAgent.gamma = 0.5',
    )
    text = config.load([mine])
    for binding in (
      "make.name = 'pearl/HalfCheetahVel-v0'",  # Three files below the one that is named.
      'PearlAgent.encoder_class = @RecurrentEncoder',
      'PearlAgent.gamma = 0.5',
      'PearlTraining.batch_size = 7',
      'PearlTraining.meta_batch_size = 9',
    ):
      self.assertIn(binding, text)

  def test_shipped_files_are_found_from_any_folder(self):
    with contextlib.chdir(self.folder):
      shipped = config.load(['cheetah_vel.gin'])
      self.write('cheetah_vel.gin', 'PearlTraining.batch_size = 3')
      self.assertNotEqual(config.load(['cheetah_vel.gin']), shipped)  # One's own comes first.

  def test_an_include_that_is_not_there_is_named(self):
    mine = self.write('mine.gin', "include 'gone.gin'")
    with self.assertRaisesRegex(config.ConfigError, f"no gin file 'gone.gin' in {self.folder}"):
      config.load([mine])

  def test_a_fault_is_shown_where_it_is(self):
    self.write('more.gin', '', 'Trainin.batch_size = 7')
    mine = self.write('mine.gin', "include 'more.gin'")
    with self.assertRaisesRegex(config.ConfigError, 'more.gin", line 2') as caught:
      config.load([mine])
    self.assertNotIn('pearl_tf:', str(caught.exception))

  def test_what_an_earlier_version_called_otherwise_is_understood(self):
    text = config.load_text(
      'PearlAgent.backup_class = @TargetCriticBackup\nValueBackup.learning_rate = 0.1'
    )
    self.assertIn('PearlAgent.target_class = @CriticTarget', text)
    self.assertIn('ValueTarget.learning_rate = 0.1', text)
    text = config.load([], ['Training.batch_size = 7', 'Training.num_iterations = 3'])
    self.assertIn('PearlTraining.batch_size = 7', text)
    self.assertIn('\nTraining.num_iterations = 3', text)


class StartUpTest(test_case.TestCase):
  @parameterized.parameters(
    ("registry.make.name = 'pearl/PointRobt-v0'", r"'pearl/PointRobt-v0'.*'pearl/PointRobot-v0'"),
    ("registry.make.name = 'no_module:Family'", "no module 'no_module'"),
    ('registry.make.colour = 3', 'colour'),
    ('sample_task_split.num_train = 0', 'num_train must be positive, got 0'),
    ('sample_task_split.num_test = -1', 'num_test must be positive, or None.*got -1'),
    (
      'PearlTraining.batch_size = -5',
      'PearlTraining.batch_size must be a positive.*got -5',
    ),
    ('PearlTraining.meta_batch_size = 2.5', r'meta_batch_size must be an integer, got 2\.5'),
    ("Training.num_iterations = 'ten'", "must be an integer, got 'ten'"),
    ('CollectSchedule.prior_steps = -1', 'prior_steps must be an integer of at least 0, got -1'),
    (
      'PearlTraining.context_size = 100000',
      'context_size = 100000 can never be collected.*at most 219 .*[Ll]ower context_size',
    ),
    ('MetaTest.num_repeats = 0', 'num_repeats.*got 0'),
    ('PearlAgent.kl_weight = -1.0', r'kl_weight must be at least 0\.0, got -1\.0'),
    ('PearlAgent.gamma = 1.5', r'gamma must be in \[0\.0, 1\.0\], got 1\.5'),
    ('GaussianEncoder.latent_size = 0', 'latent_size must be positive, got 0'),
    (
      'LatentCritic.hidden_units = ()',
      r'LatentCritic.hidden_units must be positive and at least one, got \(\)',
    ),
    ("PearlAgent.compute_type = 'float8'", "'bfloat16' or 'auto', got 'float8'"),
    ('make_tables.max_replay_episodes = 0', 'max_replay_episodes must be positive, got 0'),
    # Known names that nothing here reads.
    ('AutomaticEntropyWeight.initial_weight = 0.5', 'reads AutomaticEntropyWeight.initial_weight'),
    ('LatentCritic.seed = 3', "'LatentCritic' has denylisted kwarg 'seed'"),
    ('SOME_MACRO = 3', 'reads SOME_MACRO'),
  )
  def test_is_refused_before_the_folder_is_touched(self, binding, message):
    root = self.temp_dir() / 'run'
    with self.assertRaisesRegex(config.ConfigError, f'(?s){message}') as caught:
      local_loop.train(
        root, gin_files=[small_run.GIN_FILE], gin_bindings=(*small_run.NARROW, binding), seed=0
      )
    self.assertNotIn('0x', str(caught.exception))  # No addresses of Python objects.
    self.assertFalse(root.exists())

  @parameterized.parameters(AttributeError, ValueError, TypeError)
  def test_an_authors_own_bug_keeps_its_traceback(self, error):
    @gin.configurable(f'Broken{error.__name__}')
    class Broken(encoder.GaussianEncoder):
      def __init__(self, spec, **more):
        super().__init__(spec, **more)
        raise error('of an author')

    del Broken
    binding = f'PearlAgent.encoder_class = @Broken{error.__name__}'
    with self.assertRaisesRegex(error, 'of an author') as caught:
      local_loop.train(self.temp_dir(), gin_files=[small_run.GIN_FILE], gin_bindings=[binding])
    self.assertNotIsInstance(caught.exception, config.ConfigError)

  def test_a_module_that_is_not_there_is_named(self):
    with self.assertRaisesRegex(config.ConfigError, "(?s)No module named 'no_networks'.*Is its"):
      config.load([], ['import no_networks'])

  def test_a_bracket_that_is_not_closed_is_named(self):
    with self.assertRaisesRegex(config.ConfigError, 'cannot be parsed'):
      config.load([], ['GaussianEncoder.hidden_units = (3,'])

  def test_a_seed_out_of_range_is_named(self):
    with self.assertRaisesRegex(config.ConfigError, r'seed must be in \[0, 2147483647\], got 2'):
      experiment_lib.load([small_run.GIN_FILE], seed=2**31)

  def test_a_required_number_is_asked_for(self):
    root = self.temp_dir() / 'run'
    with self.assertRaisesRegex(config.ConfigError, 'sample_task_split.*num_train'):
      local_loop.train(
        root, gin_files=[], gin_bindings=["registry.make.name = 'pearl/PointRobot-v0'"], seed=0
      )
    self.assertFalse(root.exists())

  def test_a_used_macro_is_no_error(self):
    macro = ('WIDTH = 7', 'PearlTraining.batch_size = %WIDTH')
    experiment = experiment_lib.load([small_run.GIN_FILE], macro)
    self.assertEqual(experiment.method.training.batch_size, 7)


if __name__ == '__main__':
  absltest.main()
