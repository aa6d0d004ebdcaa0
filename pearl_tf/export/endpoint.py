"""What the served endpoint computes: beliefs from transitions, latents from beliefs, actions.

This module owns the meaning of the signatures: batch-first tensors in and out, one row per session,
no state between calls and no randomness but that of the seeds. How they are saved is the business
of `serving_module`. Letters of shapes: `B` sessions, `T` transitions (padded), `C` features of a
transition, `O` observation, `A` action, `L` latent size and `P` the width of a precision, which is
`L` for most encoders.
"""

import tensorflow as tf

from pearl_tf.data import specs, types
from pearl_tf.export import row_status
from pearl_tf.networks import actor, encoder

# Of one session; sums of counts below this limit cannot overflow int32.
MAX_COUNT = 2**30
_NAN = float('nan')

Tensors = dict[str, tf.Tensor]


class Endpoint:
  """The signatures as plain functions of tensors, over the variables of an agent.

  A fault in the data of a row shows in its `status` (`row_status`) and leaves the other rows alone:
  `encode` answers the prior, `update` the state as it came, `sample_z` and `act` NaN. Of several
  faults the latent tag is reported first, then the number of transitions, then bad numbers. Faults
  in shapes are not looked for here: `serving_module` refuses them before.
  """

  def __init__(
    self,
    domain: specs.DomainSpec,
    *,
    context_encoder: encoder.ContextEncoder,
    actor_network: actor.LatentActor,
  ):
    """Connects the networks.

    Args:
      domain: sizes of the domain.
      context_encoder: q(z | c).
      actor_network: pi(a | s, z).
    """
    self.domain = domain
    self.latent_size = context_encoder.latent_size
    self.precision_size = context_encoder.precision_size
    self.uses_next_observation = context_encoder.use_next_observation
    # A variable and not a constant, so that one trace serves all exports of a run.
    self.latent_tag = tf.Variable(0, trainable=False, dtype=tf.int64, name='latent_tag')
    self._encoder = context_encoder
    self._actor = actor_network

  @property
  def kind(self) -> str:
    """Name of the kind of encoder."""
    return self._encoder.kind

  @property
  def supports_update(self) -> bool:
    """Whether what new transitions say can be added to a belief."""
    return self._encoder.is_additive

  @property
  def context_features(self) -> int:
    """`C`: observation, action and reward, and the next observation where the encoder sees it."""
    observation_size, action_size = self.domain
    return observation_size + action_size + 1 + observation_size * self.uses_next_observation

  @property
  def encoder_variables(self) -> list[tf.Variable]:
    """What `encode` and `update` read."""
    return [self.latent_tag, *self._encoder.variables]

  @property
  def actor_variables(self) -> list[tf.Variable]:
    """What `sample_z` and `act` read."""
    return [self.latent_tag, *self._actor.variables]

  def encode(self, context: tf.Tensor, num_transitions: tf.Tensor) -> Tensors:
    """Infers beliefs from contexts.

    Args:
      context: `[B, T, C] float32`; rows of a session after its `num_transitions` may hold anything.
      num_transitions: `[B] int32`, in [0, T].

    Returns:
      eta, mean and variance `[B, L]`, precision `[B, P]`, count `[B] int32`, latent_tag `[B] int64`
      and status `[B] int32`.
    """
    parameters, count, status = self._collect(context, num_transitions)
    return self._state(parameters, count, self._own_tags(status), status)

  def update(
    self,
    context: tf.Tensor,
    num_transitions: tf.Tensor,
    eta: tf.Tensor,
    precision: tf.Tensor,
    count: tf.Tensor,
    latent_tag: tf.Tensor,
  ) -> Tensors:
    """Adds the evidence of new transitions to beliefs.

    Args:
      context: as for `encode`, new transitions only.
      num_transitions: as for `encode`.
      eta: `[B, L] float32`, of an earlier answer, as all that follow.
      precision: `[B, P] float32`.
      count: `[B] int32`.
      latent_tag: `[B] int64`.

    Returns:
      As `encode`; latent_tag is the one that came in.

    Raises:
      InvalidArgumentError: if the encoder reads a context in the order of time.
    """
    if not self.supports_update:
      return self._refuse_update(eta, precision, count, latent_tag)
    new, new_count, context_status = self._collect(context, num_transitions)
    raw = _natural_parameters(eta, precision, count)
    old, state_status = self._check_state(raw, count, latent_tag)
    status = row_status.first(state_status, context_status)
    total = types.NaturalParameters(
      precision=old.precision + new.precision,
      precision_mean=old.precision_mean + new.precision_mean,
      count=old.count + new.count,
    )
    # Both finite, and yet perhaps not their sum.
    doubled = types.NaturalParameters(*(2.0 * part for part in total))  # The next sum, perhaps.
    status = row_status.first(
      status, row_status.fault(~_is_finite(doubled), row_status.BAD_NUMBERS)
    )
    is_ok = status == row_status.OK
    kept = types.NaturalParameters(
      precision=tf.where(is_ok[:, tf.newaxis], total.precision, raw.precision),
      precision_mean=tf.where(is_ok[:, tf.newaxis], total.precision_mean, raw.precision_mean),
      count=tf.where(is_ok, total.count, raw.count),
    )
    count = tf.where(is_ok, count + new_count, count)
    return self._state(kept, count, latent_tag, status)

  def sample_z(
    self,
    eta: tf.Tensor,
    precision: tf.Tensor,
    count: tf.Tensor,
    latent_tag: tf.Tensor,
    seed: tf.Tensor,
  ) -> Tensors:
    """Draws a latent per session from its belief.

    Args:
      eta: `[B, L] float32`, of an earlier answer, as precision, count and latent_tag.
      precision: `[B, P] float32`.
      count: `[B] int32`; 0 draws from the prior.
      latent_tag: `[B] int64`.
      seed: `[B, 2] int32`; a row's latent depends on its own seed alone.

    Returns:
      z `[B, L] float32`, latent_tag as it came in, and status.
    """
    raw = _natural_parameters(eta, precision, count)
    parameters, status = self._check_state(raw, count, latent_tag)
    z = self._draw(self._encoder.belief(parameters), seed)
    z = row_status.keep_rows(status == row_status.OK, z, _NAN)
    return {'z': z, 'latent_tag': latent_tag, 'status': status}

  def act(self, observation: tf.Tensor, z: tf.Tensor, latent_tag: tf.Tensor) -> Tensors:
    """Acts by the squashed mean.

    Args:
      observation: `[B, O] float32`.
      z: `[B, L] float32`.
      latent_tag: `[B] int64`, that came with z.

    Returns:
      action `[B, A] float32` in [-1, 1] and status.
    """
    parameters, status = self._action_parameters(observation, z, latent_tag)
    return _checked_action(actor.mean_action(parameters), status)

  def act_sample(
    self, observation: tf.Tensor, z: tf.Tensor, latent_tag: tf.Tensor, seed: tf.Tensor
  ) -> Tensors:
    """Acts by a draw of the policy; `seed` is `[B, 2] int32`, the rest as for `act`."""
    parameters, status = self._action_parameters(observation, z, latent_tag)
    noise = _normal_rows(seed, self.domain.action_size)
    action = tf.tanh(parameters.mean + tf.exp(parameters.log_std) * noise)
    return _checked_action(action, status)

  def adapt_and_act(
    self,
    context: tf.Tensor,
    num_transitions: tf.Tensor,
    observation: tf.Tensor,
    seed: tf.Tensor,
  ) -> Tensors:
    """Infers, draws a latent and acts by the squashed mean, in one call.

    Args:
      context: as for `encode`.
      num_transitions: as for `encode`.
      observation: `[B, O] float32`.
      seed: `[B, 2] int32`, of the latent.

    Returns:
      All of `encode`, z `[B, L]` and action `[B, A]`; NaN in both where the context is faulty.
    """
    state = self.encode(context, num_transitions)
    belief = types.Posterior(mean=state['mean'], variance=state['variance'])
    z = self._draw(belief, seed)
    z = row_status.keep_rows(state['status'] == row_status.OK, z, _NAN)
    action = self.act(observation, z, state['latent_tag'])
    # A z of NaN is a fault in act; what made it so is in the state.
    status = row_status.first(state['status'], action['status'])
    return state | {'z': z, 'action': action['action'], 'status': status}

  def _own_tags(self, like: tf.Tensor) -> tf.Tensor:
    return tf.fill(tf.shape(like), self.latent_tag)

  def _collect(
    self, context: tf.Tensor, num_transitions: tf.Tensor
  ) -> tuple[types.NaturalParameters, tf.Tensor, tf.Tensor]:
    """Returns the evidence, zero in faulty rows, its count `[B] int32` and the status."""
    length = tf.shape(context)[1]
    in_range = (num_transitions >= 0) & (num_transitions <= length)
    mask = tf.sequence_mask(tf.where(in_range, num_transitions, 0), length)
    is_fine = tf.math.is_finite(context) | ~mask[..., tf.newaxis]
    is_finite = tf.reduce_all(is_fine, axis=[1, 2])
    mask &= is_finite[:, tf.newaxis]
    # Before the network: NaN times zero would still be NaN.
    context = tf.where(mask[..., tf.newaxis], context, 0.0)
    parameters = self._encoder.statistics(self.split(context, mask))
    # Finite inputs may still be too large for the network.
    has_evidence = tf.reduce_any(mask, axis=1)
    is_usable = ~has_evidence | self._is_proper(parameters)
    status = row_status.first(
      row_status.fault(~in_range, row_status.NUM_TRANSITIONS_OUT_OF_RANGE),
      row_status.fault(~(is_finite & is_usable), row_status.BAD_NUMBERS),
    )
    count = tf.where(status == row_status.OK, num_transitions, 0)
    return _zero_without_evidence(parameters, count), count, status

  def split(self, context: tf.Tensor, mask: tf.Tensor) -> types.ContextBatch:
    """Returns the columns of a context `[B, T, C]` with a mask `[B, T] bool`."""
    observation_size, action_size = self.domain
    sizes = [observation_size, action_size, 1]
    sizes += [observation_size] * self.uses_next_observation
    observation, action, reward, *rest = tf.split(context, sizes, axis=-1)
    return types.ContextBatch(
      observation=observation,
      action=action,
      reward=tf.squeeze(reward, axis=-1),
      next_observation=rest[0] if rest else tf.zeros_like(observation),
      mask=tf.cast(mask, tf.float32),
    )

  def _is_proper(self, parameters: types.NaturalParameters) -> tf.Tensor:
    """Tells which rows are natural parameters of a belief with evidence, `[B] bool`."""
    is_finite = _is_finite(parameters)
    usable = row_status.keep_rows(is_finite, parameters.precision, 0.0)
    return is_finite & self._encoder.is_proper(parameters._replace(precision=usable))

  def _is_valid_state(self, parameters: types.NaturalParameters, count: tf.Tensor) -> tf.Tensor:
    is_empty = (
      (count == 0) & _is_finite(parameters) & tf.reduce_all(parameters.precision >= 0, axis=-1)
    )
    return is_empty | ((count > 0) & (count <= MAX_COUNT) & self._is_proper(parameters))

  def _check_state(
    self, parameters: types.NaturalParameters, count: tf.Tensor, latent_tag: tf.Tensor
  ) -> tuple[types.NaturalParameters, tf.Tensor]:
    """Returns natural parameters, zero where unusable or without evidence, and the status."""
    is_valid = self._is_valid_state(parameters, count)
    status = row_status.first(
      row_status.fault(latent_tag != self.latent_tag, row_status.FOREIGN_LATENT_TAG),
      row_status.fault(~is_valid, row_status.BAD_NUMBERS),
    )
    count = tf.where(status == row_status.OK, count, 0)
    return _zero_without_evidence(parameters, count), status

  def _state(
    self,
    parameters: types.NaturalParameters,
    count: tf.Tensor,
    latent_tag: tf.Tensor,
    status: tf.Tensor,
  ) -> Tensors:
    """Returns the answer of `encode` and `update`; no belief follows from an invalid state."""
    is_valid = self._is_valid_state(parameters, count)
    belief = self._encoder.belief(_zero_without_evidence(parameters, tf.where(is_valid, count, 0)))
    return {
      'eta': parameters.precision_mean,
      'precision': parameters.precision,
      'count': count,
      'mean': row_status.keep_rows(is_valid, belief.mean, _NAN),
      'variance': row_status.keep_rows(is_valid, belief.variance, _NAN),
      'latent_tag': latent_tag,
      'status': status,
    }

  def _refuse_update(
    self, eta: tf.Tensor, precision: tf.Tensor, count: tf.Tensor, latent_tag: tf.Tensor
  ) -> Tensors:
    refusal = tf.debugging.Assert(
      False,
      [
        f'update is not supported: the {self.kind} encoder of this model reads a context '
        'in the order of time, so its evidence cannot be added up. Send the whole context to '
        'encode instead.'
      ],
    )
    with tf.control_dependencies([refusal]):
      raw = _natural_parameters(eta, precision, count)
      return self._state(raw, count, latent_tag, tf.zeros_like(count))

  def _draw(self, belief: types.Posterior, seed: tf.Tensor) -> tf.Tensor:
    noise = _normal_rows(seed, self.latent_size)
    return belief.mean + tf.sqrt(belief.variance) * noise

  def _action_parameters(
    self, observation: tf.Tensor, z: tf.Tensor, latent_tag: tf.Tensor
  ) -> tuple[actor.ActionParameters, tf.Tensor]:
    is_finite = row_status.finite_rows(tf.concat([observation, z], axis=-1))
    status = row_status.first(
      row_status.fault(latent_tag != self.latent_tag, row_status.FOREIGN_LATENT_TAG),
      row_status.fault(~is_finite, row_status.BAD_NUMBERS),
    )
    observation = row_status.keep_rows(is_finite, observation, 0.0)
    z = row_status.keep_rows(is_finite, z, 0.0)
    parameters, _ = self._actor((observation, z))
    return parameters, status


def _natural_parameters(
  eta: tf.Tensor, precision: tf.Tensor, count: tf.Tensor
) -> types.NaturalParameters:
  return types.NaturalParameters(
    precision=precision, precision_mean=eta, count=tf.cast(count, tf.float32)
  )


def _normal_rows(seed: tf.Tensor, size: int) -> tf.Tensor:
  """Draws `[B, size]` standard normal numbers, each row from its own seed of `[B, 2] int32`.

  One seed for the whole tensor would make a row's numbers depend on its place in the batch.
  """
  return tf.map_fn(
    lambda row: tf.random.stateless_normal([size], row, alg='philox'),
    seed,
    fn_output_signature=tf.TensorSpec([size], tf.float32),
  )


def _is_finite(parameters: types.NaturalParameters) -> tf.Tensor:
  return row_status.finite_rows(parameters.precision_mean) & row_status.finite_rows(
    parameters.precision
  )


def _zero_without_evidence(
  parameters: types.NaturalParameters, count: tf.Tensor
) -> types.NaturalParameters:
  has_evidence = count > 0
  return types.NaturalParameters(
    precision=row_status.keep_rows(has_evidence, parameters.precision, 0.0),
    precision_mean=row_status.keep_rows(has_evidence, parameters.precision_mean, 0.0),
    count=tf.cast(count, tf.float32),
  )


def _checked_action(action: tf.Tensor, status: tf.Tensor) -> Tensors:
  # Finite inputs may still be too large for the network.
  is_broken = ~row_status.finite_rows(action)
  status = row_status.first(status, row_status.fault(is_broken, row_status.BAD_NUMBERS))
  action = row_status.keep_rows(status == row_status.OK, action, _NAN)
  return {'action': action, 'status': status}
