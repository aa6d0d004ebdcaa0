"""Which devices train: a choice of the whole process, made before TensorFlow uses any."""

import tensorflow as tf
from tf_agents.train.utils import strategy_utils

from pearl_tf.experiment import config


def strategy(num_gpus: int | None) -> tf.distribute.Strategy:
  """Returns the devices that share a training step.

  Args:
    num_gpus: the first so many GPUs of this host, each of which takes an equal share of the tasks
      of a batch; 0 for the CPU, None for what TensorFlow takes by itself: the first GPU, if any.

  Raises:
    ConfigError: if there are fewer.
  """
  if num_gpus is not None:
    gpus = tf.config.list_physical_devices('GPU')
    if num_gpus > len(gpus):
      raise config.ConfigError(
        f'--num_gpus={num_gpus}, but TensorFlow finds {len(gpus)} on this host'
      )
    tf.config.set_visible_devices(gpus[:num_gpus], 'GPU')
  return strategy_utils.get_strategy(tpu=None, use_gpu=(num_gpus or 0) > 1)
