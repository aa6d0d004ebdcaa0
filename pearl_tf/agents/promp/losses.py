"""The objective of ProMP.

References: Rothfuss et al. 2019, arXiv:1810.06784, equations 14 and 15 and algorithm 1.
"""

import tensorflow as tf

from pearl_tf.agents import meta_gradient
from pearl_tf.networks import flat_gaussian


def promp_loss(
  policy: flat_gaussian.FlatGaussian,
  parameters: tf.Tensor,
  pre: meta_gradient.Stage,
  post: meta_gradient.Stage,
  *,
  step_size: float,
  clip: float,
  kl_weight: float,
) -> tuple[tf.Tensor, dict[str, tf.Tensor]]:
  """Returns the clipped surrogate after adaptation and a penalty before it, per task.

  Args:
    policy: the function that parameters are of.
    parameters: `[P]`, from which every task adapts.
    pre: collected before adaptation.
    post: collected after it.
    step_size: of the inner step.
    clip: how far the ratio may leave 1 to be paid for.
    kl_weight: of the divergence from what collected `pre`.

  Returns:
    The loss `[T]`, and scalars for the log, `[T]` each.
  """
  start = meta_gradient.tiled(parameters, pre)
  adapted = meta_gradient.adapted(policy, start, pre, step_size=step_size, form=meta_gradient.RATIO)
  new = policy(adapted, post.observation)
  ratio = meta_gradient.ratio(new, post)
  clipped = tf.clip_by_value(ratio, 1 - clip, 1 + clip)
  surrogate = -meta_gradient.task_means(
    tf.minimum(ratio * post.advantage, clipped * post.advantage), post.mask
  )
  inner_kl = meta_gradient.task_means(
    flat_gaussian.kl_divergence(pre.old, policy(start, pre.observation)), pre.mask
  )
  return surrogate + kl_weight * inner_kl, {
    'loss/surrogate': surrogate,
    'kl/inner': inner_kl,
    'kl/outer': meta_gradient.task_means(flat_gaussian.kl_divergence(post.old, new), post.mask),
    'policy/log_std': tf.reduce_mean(new.log_std, axis=[1, 2]),
  }
