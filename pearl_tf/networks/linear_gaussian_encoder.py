"""An encoder whose transitions are linear measurements of the latent, so that they triangulate.

A factor of `encoder.GaussianEncoder` says where the latent is, each axis by itself; where one
transition only says how far away the task is, the product of such factors is drawn to wherever most
transitions were made. Here a factor is a line (a hyperplane) on which the latent lies, and the
product is where the lines meet: Bayesian linear regression with learned regressors. Like the
paper's product it does not depend on the order and grows by sums.
"""

from collections.abc import Sequence

import gin
import tensorflow as tf

from pearl_tf.data import types
from pearl_tf.networks import encoder, layers

# Bounds of regressors and measurements, in units of the noise: a transition is at most as sharp as
# a factor of `encoder.GaussianEncoder`, about.
MAX_MEASUREMENT = 1e3
# Of the trace of a precision, added to its diagonal: sums in float32 are not positive definite.
_JITTER = 1e-6


@gin.configurable(denylist=['input_tensor_spec', 'seed', 'name'])
class LinearGaussianEncoder(encoder.ContextEncoder):
  """Each transition measures the latent: `y = w^T z + noise`, noise ~ N(0, 1), z ~ N(0, I) before.

  *Mathematical Details*

  ```none
  precision = sum_n w[n] w[n]^T                      [Z, Z]
  eta       = sum_n w[n] y[n]                        [Z]
  q(z | c)  = N((I + precision)^-1 eta, (I + precision)^-1)
  ```

  `w` and `y` are outputs of a network for one transition. What leaves the encoder are the mean and
  the variances on the diagonal (the marginals), from which latents are drawn and whose divergence
  from the prior is penalised; the covariances stay in the statistics.

  #### References
  [1]: Bishop. Pattern Recognition and Machine Learning. 2006, section 3.3, equations 3.53
       and 3.54.
  """

  kind = 'linear_gaussian'

  def __init__(
    self,
    input_tensor_spec: types.ContextBatch,
    *,
    latent_size: int = 5,
    hidden_units: Sequence[int] = (200, 200, 200),
    use_next_observation: bool = False,
    seed: int = 0,
    name: str = 'LinearGaussianEncoder',
  ):
    """Builds the network; see `encoder.GaussianEncoder` for the arguments."""
    super().__init__(
      input_tensor_spec,
      latent_size=latent_size,
      use_next_observation=use_next_observation,
      name=name,
    )
    layers.check_widths(self, hidden_units=hidden_units)
    # Larger than in other encoders: the posterior is of second order in the regressors.
    self._mlp = layers.Mlp(hidden_units, latent_size + 1, output_limit=0.1, seed=seed, name='mlp')

  @property
  def has_bottleneck(self) -> bool:
    return True

  @property
  def precision_size(self) -> int:
    return self.latent_size**2

  def call(self, inputs, step_type=(), network_state=(), training=False):
    """Returns `[T, N, Z + 1]`, of each transition of a context `[T, N]` the regressors, then y."""
    del step_type, training
    outputs = self._mlp(encoder.context_features(inputs, self.use_next_observation))
    return tf.clip_by_value(outputs, -MAX_MEASUREMENT, MAX_MEASUREMENT), network_state

  def statistics(self, context: types.ContextBatch) -> types.NaturalParameters:
    measurements, _ = self(context)
    measurements = tf.where(context.mask[..., tf.newaxis] > 0, measurements, 0.0)
    regressors, measured = tf.split(measurements, [self.latent_size, 1], axis=-1)
    precision = tf.matmul(regressors, regressors, transpose_a=True)
    return types.NaturalParameters(
      precision=tf.reshape(precision, [-1, self.precision_size]),
      precision_mean=tf.squeeze(tf.matmul(regressors, measured, transpose_a=True), axis=-1),
      count=tf.reduce_sum(context.mask, axis=-1),
    )

  def is_proper(self, statistics: types.NaturalParameters) -> tf.Tensor:
    precision = self._matrix(statistics.precision)
    bound = 0.5 + 0.5 * _JITTER * tf.linalg.trace(precision)
    return tf.reduce_min(tf.linalg.eigvalsh(precision), axis=-1) > -bound

  def belief(self, statistics: types.NaturalParameters) -> types.Posterior:
    precision = self._matrix(statistics.precision)
    identity = tf.eye(self.latent_size, dtype=tf.float64)
    scale = 1.0 + _JITTER * tf.linalg.trace(precision)[..., tf.newaxis, tf.newaxis]
    factor = tf.linalg.cholesky(precision + scale * identity)
    eta = tf.cast(statistics.precision_mean, tf.float64)[..., tf.newaxis]
    mean = tf.squeeze(tf.linalg.cholesky_solve(factor, eta), axis=-1)
    covariance = tf.linalg.cholesky_solve(factor, identity + tf.zeros_like(factor))
    return types.Posterior(
      mean=tf.cast(mean, tf.float32), variance=tf.cast(tf.linalg.diag_part(covariance), tf.float32)
    )

  def _matrix(self, precision: tf.Tensor) -> tf.Tensor:
    """Returns the symmetric matrices `[..., Z, Z] float64` of flat ones `[..., Z * Z]`."""
    shape = tf.concat([tf.shape(precision)[:-1], [self.latent_size, self.latent_size]], axis=0)
    matrix = tf.reshape(tf.cast(precision, tf.float64), shape)
    return 0.5 * (matrix + tf.linalg.matrix_transpose(matrix))
