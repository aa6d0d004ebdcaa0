"""The flags by which programs are told of a trained agent: of a run, or published."""

from __future__ import annotations

from typing import TYPE_CHECKING

from absl import app, flags

if TYPE_CHECKING:
  from pearl_tf.experiment import trained


def define(*, checkpoint: str = 'latest') -> None:
  """Defines --root_dir, --checkpoint and --pretrained.

  Args:
    checkpoint: which one of a run by default.
  """
  flags.DEFINE_string('root_dir', None, 'Run folder of the trained agent.')
  flags.DEFINE_string(
    'checkpoint',
    checkpoint,
    "Of the run folder: 'latest', 'best', or name or number of a folder in checkpoints/.",
  )
  flags.DEFINE_string(
    'pretrained',
    None,
    'Instead of --root_dir: name of a published agent that is shipped with the library (a wrong '
    'name gets the list of all), or path of a folder that trainers.publish made.',
  )


def check(options: flags.FlagValues) -> None:
  """Raises `app.UsageError` unless exactly one agent is named, and unambiguously."""
  if (options.root_dir is None) == (options.pretrained is None):
    raise app.UsageError('give --root_dir, the folder of a run, or --pretrained, a published agent')
  if options.pretrained is not None and options['checkpoint'].present:
    raise app.UsageError('--checkpoint is of a run folder; a published agent has no others')


def load(options: flags.FlagValues) -> trained.Trained:
  """Loads the agent; raises what `trained.load` does."""
  # Here, so that --help and wrong flags are answered without the wait for TensorFlow.
  from pearl_tf.experiment import trained

  return trained.load(options.root_dir, options.checkpoint, pretrained=options.pretrained)
