"""The smallest meta-training that still does everything: bindings for tests of the loop."""

import pathlib
import re

ROOT = pathlib.Path(__file__).resolve().parents[2]
GIN_FILE = str(ROOT / 'trainers' / 'configs' / 'point_robot.gin')

NARROW = (
  'GaussianEncoder.hidden_units = (8, 8)',
  'LatentActor.hidden_units = (8, 8)',
  'LatentCritic.hidden_units = (8, 8)',
  'LatentValue.hidden_units = (8, 8)',
)
SMALL = NARROW + (
  'sample_task_split.num_train = 4',
  'sample_task_split.num_test = 2',
  'CollectSchedule.initial_steps = 40',
  'CollectSchedule.tasks_per_iteration = 3',
  'CollectSchedule.prior_steps = 40',
  'CollectSchedule.posterior_steps = 20',
  'CollectSchedule.extra_steps = 40',
  'Training.num_iterations = 3',
  'PearlTraining.gradient_steps_per_iteration = 40',
  'PearlTraining.steps_per_call = 10',
  'PearlTraining.meta_batch_size = 3',
  'PearlTraining.context_size = 16',
  'PearlTraining.batch_size = 16',
  'Training.num_environments = 8',
  'Training.checkpoint_interval = 1',
  'Training.export_interval = None',
)
# The same on the `Line` family of `pearl_tf.testing.fakes`.
LINE = SMALL + (
  "registry.make.name = 'pearl_tf.testing.fakes:Line'",
  'Training.max_episode_steps = 5',
)


def without_reverb(stderr: str) -> str:
  """Returns what a program said but for what every replay server says."""
  return re.sub(
    r'^(\[reverb/|W.* the replay server listens at ).*\n', '', stderr, flags=re.MULTILINE
  )
