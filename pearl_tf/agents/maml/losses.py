"""The objective of MAML, and the curvature of its trust region.

References: Finn et al. 2017, arXiv:1703.03400, section 5.3; Schulman et al. 2015, arXiv:1502.05477,
appendix C.
"""

import tensorflow as tf

from pearl_tf.agents import meta_gradient
from pearl_tf.networks import flat_gaussian


def _adapted_policy(policy, parameters, pre, post, step_size) -> flat_gaussian.Gaussian:
  start = meta_gradient.tiled(parameters, pre)
  adapted = meta_gradient.adapted(
    policy, start, pre, step_size=step_size, form=meta_gradient.LOG_LIKELIHOOD
  )
  return policy(adapted, post.observation)


def surrogate_and_kl(
  policy: flat_gaussian.FlatGaussian,
  parameters: tf.Tensor,
  pre: meta_gradient.Stage,
  post: meta_gradient.Stage,
  *,
  step_size: float,
) -> tuple[tf.Tensor, tf.Tensor]:
  """Returns what is minimised and what is bounded, `[T]` both.

  Args:
    policy: the function that parameters are of.
    parameters: `[P]`, from which every task adapts.
    pre: collected before adaptation.
    post: collected after it.
    step_size: of the inner step.

  Returns:
    Minus the mean of ratio times advantage, and the mean KL from what collected `post`.
  """
  new = _adapted_policy(policy, parameters, pre, post, step_size)
  surrogate = -meta_gradient.task_means(meta_gradient.ratio(new, post) * post.advantage, post.mask)
  kl = meta_gradient.task_means(flat_gaussian.kl_divergence(post.old, new), post.mask)
  return surrogate, kl


def curvature_product(
  policy: flat_gaussian.FlatGaussian,
  parameters: tf.Tensor,
  vector: tf.Tensor,
  pre: meta_gradient.Stage,
  post: meta_gradient.Stage,
  *,
  step_size: float,
) -> tf.Tensor:
  """Returns the Hessian of the *summed* task means of the KL times a vector, `[P]`.

  *Mathematical Details* Where `post` was collected the KL is stationary in mean and log_std of the
  adapted policy, so its Hessian is exactly `J' M J`: J their Jacobian through the inner step, M
  the Hessian of the KL in them, `diag(1 / std**2, 2)` over the number of transitions.

  Args:
    policy: the function that parameters are of.
    parameters: `[P]`, those that `post` was collected with before adaptation.
    vector: `[P]`.
    pre: collected before adaptation.
    post: collected after it.
    step_size: of the inner step.
  """
  with (
    tf.autodiff.ForwardAccumulator(parameters, vector) as accumulator,
    tf.GradientTape() as tape,
  ):
    tape.watch(parameters)
    new = _adapted_policy(policy, parameters, pre, post, step_size)
  weight = (post.mask / tf.reduce_sum(post.mask, axis=1, keepdims=True))[..., tf.newaxis]
  mean_seed = accumulator.jvp(new.mean) * tf.exp(-2 * new.log_std) * weight
  log_std_seed = 2 * accumulator.jvp(new.log_std) * weight
  return tape.gradient(
    [new.mean, new.log_std], parameters, output_gradients=[mean_seed, log_std_seed]
  )
