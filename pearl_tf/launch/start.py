"""How every process of a run begins."""

import tensorflow as tf

from pearl_tf.experiment import builder as builder_lib
from pearl_tf.experiment import config
from pearl_tf.experiment import experiment as experiment_lib


def build(
  experiment: experiment_lib.Experiment, *, strategy: tf.distribute.Strategy | None = None
) -> builder_lib.Builder:
  """Returns the builder of an experiment whose method can be distributed.

  Args:
    experiment: what the run is.
    strategy: the devices that share a training step; one device by default.

  Raises:
    ConfigError: if it cannot, or a number is impossible.
  """
  with config.as_config_error():
    builder = builder_lib.Builder(experiment, strategy=strategy)
  method = builder.method
  if method.not_distributed:
    raise config.ConfigError(
      f'{method.name} cannot collect in other processes: {method.not_distributed}. Use '
      'trainers.train'
    )
  return builder
