"""Context encoders: from transitions of a task to a belief over its latent.

This module owns inference q(z | c), in two steps that every encoder defines: `statistics(context)`,
what a context says, in the form that travels and, for most encoders, adds up; and
`belief(statistics)`. Training, collection, meta-test and the exported model all take both steps, so
that none of them can differ from the others.
"""

import abc
from collections.abc import Sequence

import gin
import tensorflow as tf
from tf_agents.networks import network

from pearl_tf.data import types
from pearl_tf.inference import gaussian
from pearl_tf.networks import layers


def context_features(context: types.ContextBatch, use_next_observation: bool) -> tf.Tensor:
  """Concatenates what the encoder sees of each transition.

  Padding is replaced by zeros before it reaches a network: NaN times zero would still be NaN.

  Args:
    context: transitions with leading dimensions `[T, N]`.
    use_next_observation: append the next observation, needed where the dynamics vary.

  Returns:
    `[T, N, C] float32` with C = O + A + 1, plus O with the next observation.
  """
  columns = [context.observation, context.action, context.reward[..., tf.newaxis]]
  if use_next_observation:
    columns.append(context.next_observation)
  features = tf.concat(columns, axis=-1)
  return tf.where(context.mask[..., tf.newaxis] > 0, features, 0.0)


class ContextEncoder(network.Network, abc.ABC):
  """What every encoder shares: its verbs, and what it is shown.

  A subclass defines `call`, `statistics`, `belief` and `has_bottleneck`.

  Attributes:
    order_matters: whether the belief depends on the order of the transitions, so that contexts must
      be whole trajectories in time order.
    is_additive: whether the statistics of two contexts add up to those of both.
    kind: names the class in an export's manifest; the class's name unless it says otherwise.
  """

  order_matters = False
  is_additive = True
  kind: str

  def __init_subclass__(cls, **kwargs):
    super().__init_subclass__(**kwargs)
    if 'kind' not in cls.__dict__:
      cls.kind = cls.__name__
    for name in ('infer_posterior', 'prior'):
      if name in cls.__dict__:
        raise TypeError(
          f'{cls.__name__} overrides {name}, which follows from statistics and belief: override '
          'these, so that an export computes the same'
        )

  def __init__(
    self,
    input_tensor_spec: types.ContextBatch,
    *,
    latent_size: int,
    use_next_observation: bool,
    name: str,
  ):
    if latent_size < 1:
      raise ValueError(f'{type(self).__name__}.latent_size must be positive, got {latent_size}')
    super().__init__(input_tensor_spec=input_tensor_spec, state_spec=(), name=name)
    self.latent_size = latent_size
    self.use_next_observation = use_next_observation

  def create_variables(self, input_tensor_spec=None, **kwargs):
    """Builds the network on a context `[1, 1]`; TF-Agents would show it one of rank 1."""
    specs = self.input_tensor_spec if input_tensor_spec is None else input_tensor_spec
    context = tf.nest.map_structure(lambda spec: tf.zeros([1, 1, *spec.shape], spec.dtype), specs)
    outputs, _ = self(context, **kwargs)
    return tf.nest.map_structure(lambda x: tf.TensorSpec(x.shape[1:], x.dtype), outputs)

  @property
  @abc.abstractmethod
  def has_bottleneck(self) -> bool:
    """Whether the belief is a distribution whose divergence from the prior can be penalised."""

  @abc.abstractmethod
  def statistics(self, context: types.ContextBatch) -> types.NaturalParameters:
    """Returns what a context says of the task.

    Args:
      context: `[T, N]`; rows whose mask is 0 may hold anything.

    Returns:
      precision `[T, precision_size]` and precision_mean `[T, Z]`, whatever `belief` makes of them,
      and count `[T]`, the number of transitions. Where count is not 0 they are `is_proper`.
    """

  @property
  def precision_size(self) -> int:
    """Width of the precision of the statistics."""
    return self.latent_size

  def is_proper(self, statistics: types.NaturalParameters) -> tf.Tensor:
    """Tells of which statistics, finite and with evidence, a belief follows: `[...] bool`.

    A server refuses others.
    """
    return tf.reduce_all(statistics.precision > 0, axis=-1)

  @abc.abstractmethod
  def belief(self, statistics: types.NaturalParameters) -> types.Posterior:
    """Returns q(z | c) `[..., Z]` from statistics `[..., Z]`; the prior where count is 0."""

  def infer_posterior(self, context: types.ContextBatch) -> types.Posterior:
    """Returns q(z | c) with leading dimension `[T]` for a context `[T, N]`."""
    return self.belief(self.statistics(context))

  def prior(self, batch_shape: tf.Tensor | list[int]) -> types.Posterior:
    """Returns the belief before any evidence, leading dimensions `batch_shape`."""
    # The cast is for the empty list of an unbatched trial, which TensorFlow takes for floats.
    batch_shape = tf.cast(batch_shape, tf.int32)
    return self.belief(
      types.NaturalParameters(
        precision=tf.zeros(tf.concat([batch_shape, [self.precision_size]], axis=0)),
        precision_mean=tf.zeros(tf.concat([batch_shape, [self.latent_size]], axis=0)),
        count=tf.zeros(batch_shape),
      )
    )


@gin.configurable(denylist=['input_tensor_spec', 'seed', 'name'])
class GaussianEncoder(ContextEncoder):
  """The encoder of the paper: independent Gaussian factors, multiplied (section 4.1).

  Permutation invariant by construction. The network's raw second output becomes a *variance* by
  softplus, as in the reference implementation.
  """

  kind = 'gaussian'

  def __init__(
    self,
    input_tensor_spec: types.ContextBatch,
    *,
    latent_size: int = 5,
    hidden_units: Sequence[int] = (200, 200, 200),
    use_next_observation: bool = False,
    seed: int = 0,
    name: str = 'GaussianEncoder',
  ):
    """Builds the network.

    Args:
      input_tensor_spec: `types.ContextBatch` of specs of one transition.
      latent_size: `Z`.
      hidden_units: widths of the hidden layers.
      use_next_observation: show the next observation to the encoder.
      seed: seed of the initial weights.
      name: name of the network.
    """
    super().__init__(
      input_tensor_spec,
      latent_size=latent_size,
      use_next_observation=use_next_observation,
      name=name,
    )
    layers.check_widths(self, hidden_units=hidden_units)
    self._mlp = layers.Mlp(hidden_units, 2 * latent_size, seed=seed, name='mlp')

  @property
  def has_bottleneck(self) -> bool:
    return True

  def call(self, inputs, step_type=(), network_state=(), training=False):
    """Returns one `types.GaussianFactors` `[T, N, Z]` per transition of a context `[T, N]`."""
    del step_type, training
    outputs = self._mlp(context_features(inputs, self.use_next_observation))
    mean, raw_variance = tf.split(outputs, 2, axis=-1)
    variance = tf.maximum(tf.nn.softplus(raw_variance), gaussian.MIN_VARIANCE)
    return types.GaussianFactors(mean=mean, variance=variance), network_state

  def statistics(self, context: types.ContextBatch) -> types.NaturalParameters:
    factors, _ = self(context)
    return gaussian.to_natural_parameters(factors, context.mask)

  def belief(self, statistics: types.NaturalParameters) -> types.Posterior:
    return gaussian.from_natural_parameters(statistics)


@gin.configurable(denylist=['input_tensor_spec', 'seed', 'name'])
class DeterministicEncoder(ContextEncoder):
  """The ablation without a bottleneck (paper, figure 7): the latent is a mean of features."""

  kind = 'deterministic'

  def __init__(
    self,
    input_tensor_spec: types.ContextBatch,
    *,
    latent_size: int = 5,
    hidden_units: Sequence[int] = (200, 200, 200),
    use_next_observation: bool = False,
    seed: int = 0,
    name: str = 'DeterministicEncoder',
  ):
    """Builds the network; see `GaussianEncoder` for the arguments."""
    super().__init__(
      input_tensor_spec,
      latent_size=latent_size,
      use_next_observation=use_next_observation,
      name=name,
    )
    layers.check_widths(self, hidden_units=hidden_units)
    self._mlp = layers.Mlp(hidden_units, latent_size, seed=seed, name='mlp')

  @property
  def has_bottleneck(self) -> bool:
    return False

  def call(self, inputs, step_type=(), network_state=(), training=False):
    """Returns features `[T, N, Z] float32`, one per transition of a context `[T, N]`."""
    del step_type, training
    return self._mlp(context_features(inputs, self.use_next_observation)), network_state

  def statistics(self, context: types.ContextBatch) -> types.NaturalParameters:
    """Returns the sum of the features as precision_mean, and their number as precision."""
    features, _ = self(context)
    is_evidence = context.mask[..., tf.newaxis] > 0
    total = tf.reduce_sum(tf.where(is_evidence, features, 0.0), axis=-2)
    count = tf.reduce_sum(context.mask, axis=-1)
    precision = tf.broadcast_to(count[..., tf.newaxis], tf.shape(total))
    return types.NaturalParameters(precision=precision, precision_mean=total, count=count)

  def belief(self, statistics: types.NaturalParameters) -> types.Posterior:
    mean = tf.math.divide_no_nan(statistics.precision_mean, statistics.precision)
    return types.Posterior(mean=mean, variance=tf.zeros_like(mean))
