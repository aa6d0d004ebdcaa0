"""TF-Agents' own export of the policy, to be loaded with its `SavedModelPyTFEagerPolicy`.

It stands beside the servables and not among them: its signatures have scalar inputs and none that
answers by default, so no server could run them all.
"""

import os

import tensorflow as tf
from tf_agents.policies import policy_saver, tf_policy

FOLDER = 'policy_saver'


def save(
  policy: tf_policy.TFPolicy, directory: str | os.PathLike, *, train_step: tf.Variable
) -> None:
  """Writes a policy with any batch size; it draws its latents without a fixed seed.

  Args:
    policy: usually the agent's greedy policy.
    directory: an empty directory.
    train_step: training steps taken.
  """
  policy_saver.PolicySaver(policy, batch_size=None, train_step=train_step).save(str(directory))
