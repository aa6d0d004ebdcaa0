"""The recurrent context encoder: one belief from the transitions of a task in their order.

The alternative that the paper compares its permutation-invariant encoder with (figure 5). It offers
the verbs of every encoder; what it needs besides is a context of whole trajectories in time order
(`PearlTraining.context_sampling`).
"""

import math
from collections.abc import Sequence

import gin
import tensorflow as tf

from pearl_tf.data import types
from pearl_tf.inference import gaussian
from pearl_tf.networks import encoder, layers


@gin.configurable(denylist=['input_tensor_spec', 'seed', 'name'])
class RecurrentEncoder(encoder.ContextEncoder):
  """An LSTM over embedded transitions, whose last hidden state gives one Gaussian factor.

  Every inference starts from a zero state and carries both parts of it, hidden state and cell, over
  all transitions of the context. The one factor *is* the belief; without evidence it is the prior.
  """

  order_matters = True
  is_additive = False
  kind = 'recurrent'

  def __init__(
    self,
    input_tensor_spec: types.ContextBatch,
    *,
    latent_size: int = 5,
    hidden_units: Sequence[int] = (200, 200, 200),
    recurrent_units: int = 200,
    backpropagation_steps: int | None = None,
    use_next_observation: bool = False,
    seed: int = 0,
    name: str = 'RecurrentEncoder',
  ):
    """Builds the network.

    Args:
      input_tensor_spec: `types.ContextBatch` of specs of one transition.
      latent_size: `Z`.
      hidden_units: widths of the layers that embed each transition.
      recurrent_units: width of the LSTM.
      backpropagation_steps: gradients stop at the state of every so many transitions, counted from
        the last one of each context; None for none but the first. Values do not depend on it.
      use_next_observation: show the next observation to the encoder.
      seed: seed of the initial weights.
      name: name of the network.

    Raises:
      ValueError: if a size is not positive.
    """
    super().__init__(
      input_tensor_spec,
      latent_size=latent_size,
      use_next_observation=use_next_observation,
      name=name,
    )
    layers.check_widths(self, hidden_units=hidden_units, recurrent_units=[recurrent_units])
    if backpropagation_steps is not None and backpropagation_steps < 1:
      raise ValueError(
        f'{type(self).__name__}.backpropagation_steps must be positive or None, got '
        f'{backpropagation_steps}'
      )
    self._backpropagation_steps = backpropagation_steps
    self._embedding_layers = [
      layers.hidden(units, seed=seed + 10 * i, name=f'embedding_{i}')
      for i, units in enumerate(hidden_units)
    ]
    # A cell in a loop: as fast as the fused layer on a CPU, whose GPU twin an export would carry.
    self._lstm = tf.keras.layers.RNN(
      _lstm_cell(recurrent_units, seed + 50), return_state=True, name='lstm'
    )
    self._output_layer = layers.output(2 * latent_size, 3e-3, seed=seed + 5, name='output')

  @property
  def has_bottleneck(self) -> bool:
    return True

  def call(self, inputs, step_type=(), network_state=(), training=False):
    """Returns one `types.GaussianFactors` `[T, 1, Z]` for the whole of each context `[T, N]`."""
    del step_type, training
    embedded = encoder.context_features(inputs, self.use_next_observation)
    for layer in self._embedding_layers:
      embedded = layer(embedded)
    hidden_state = self._last_hidden_state(embedded, inputs.mask > 0)
    outputs = self._output_layer(hidden_state[:, tf.newaxis])
    mean, raw_variance = tf.split(outputs, 2, axis=-1)
    variance = tf.maximum(tf.nn.softplus(raw_variance), gaussian.MIN_VARIANCE)
    return types.GaussianFactors(mean=mean, variance=variance), network_state

  def statistics(self, context: types.ContextBatch) -> types.NaturalParameters:
    factors, _ = self(context)
    # `sum`, because the maximum over an empty context is minus infinity.
    count = tf.reduce_sum(context.mask, axis=-1)
    has_evidence = tf.cast(count > 0, tf.float32)[..., tf.newaxis]
    return gaussian.to_natural_parameters(factors, has_evidence)._replace(count=count)

  def belief(self, statistics: types.NaturalParameters) -> types.Posterior:
    return gaussian.from_natural_parameters(statistics)

  def _last_hidden_state(self, embedded: tf.Tensor, is_valid: tf.Tensor) -> tf.Tensor:
    """Returns the hidden state `[T, U]` after the last valid one of the transitions `[T, N, E]`."""
    initial = self._lstm.cell.get_initial_state(batch_size=tf.shape(embedded)[0], dtype=tf.float32)
    if self._backpropagation_steps is None:
      hidden_state, _ = self._run(embedded, is_valid, initial)
      return hidden_state
    # Padding moves to the front, so that all contexts end together and one cut serves them all.
    order = tf.argsort(tf.cast(is_valid, tf.int32), axis=1, stable=True)
    embedded = tf.gather(embedded, order, batch_dims=1)
    is_valid = tf.gather(is_valid, order, batch_dims=1)
    # Only the last state is read, so nothing before the last cut has a gradient: one cut is all.
    cut = tf.maximum(tf.shape(embedded)[1] - self._backpropagation_steps, 0)
    state = self._run(tf.stop_gradient(embedded[:, :cut]), is_valid[:, :cut], initial)
    state = [tf.stop_gradient(part) for part in state]
    hidden_state, _ = self._run(embedded[:, cut:], is_valid[:, cut:], state)
    return hidden_state

  def _run(
    self, embedded: tf.Tensor, is_valid: tf.Tensor, state: list[tf.Tensor]
  ) -> list[tf.Tensor]:
    """Returns hidden state and cell, both `[T, U]`, after the valid ones of `[T, N, E]`."""
    # Keras looks at the first transition before it loops, so there must be one.
    missing = tf.maximum(1 - tf.shape(embedded)[1], 0)
    embedded = tf.pad(embedded, [[0, 0], [missing, 0], [0, 0]])
    is_valid = tf.pad(is_valid, [[0, 0], [missing, 0]])
    _, *state = self._lstm(embedded, mask=is_valid, initial_state=state)
    return state


def _lstm_cell(units: int, seed: int) -> tf.keras.layers.LSTMCell:
  """Returns an LSTM cell with all weights from U(+-1/sqrt(units)), PyTorch's default."""
  limit = 1.0 / math.sqrt(units)

  def uniform(offset: int) -> tf.keras.initializers.Initializer:
    return tf.keras.initializers.RandomUniform(-limit, limit, seed=seed + offset)

  return tf.keras.layers.LSTMCell(
    units,
    kernel_initializer=uniform(0),
    recurrent_initializer=uniform(1),
    bias_initializer=uniform(2),
    unit_forget_bias=False,  # It would overwrite a part of the biases.
    name='cell',
  )
