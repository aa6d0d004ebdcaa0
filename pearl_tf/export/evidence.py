"""How each kind of encoder turns a context into natural parameters, and these into a belief.

The served state of a session is (eta, precision, count) whatever the encoder. This module owns what
the three mean for each kind, and whether evidence of two contexts may be added.
"""

import abc

import tensorflow as tf

from pearl_tf.data import types
from pearl_tf.inference import gaussian
from pearl_tf.networks import encoder, recurrent_encoder


class Evidence(abc.ABC):
  """Adapter between an encoder and the natural parameters that clients carry.

  Attributes:
    kind: name of the kind of encoder, for the manifest.
    supports_update: whether the natural parameters of two contexts add up to those of both.
  """

  kind: str
  supports_update: bool

  def __init__(self, context_encoder: encoder.ContextEncoder):
    self._encoder = context_encoder

  @abc.abstractmethod
  def collect(self, context: types.ContextBatch) -> types.NaturalParameters:
    """Returns the evidence in a context `[B, T]`, anything in rows whose mask is all zero.

    Args:
      context: transitions, zeros where the mask is 0.

    Returns:
      `types.NaturalParameters` with precision and precision_mean `[B, L]` and count `[B]`.
    """

  @abc.abstractmethod
  def belief(self, parameters: types.NaturalParameters) -> types.Posterior:
    """Returns mean and variance `[B, L]`; the encoder's prior where count is 0."""


class GaussianEvidence(Evidence):
  """Independent factors: precisions and precision-weighted means add."""

  kind = 'gaussian'
  supports_update = True

  def collect(self, context: types.ContextBatch) -> types.NaturalParameters:
    factors, _ = self._encoder(context)
    return gaussian.to_natural_parameters(factors, context.mask)

  def belief(self, parameters: types.NaturalParameters) -> types.Posterior:
    return gaussian.from_natural_parameters(parameters)


class DeterministicEvidence(Evidence):
  """A mean of features: eta is their sum and precision their number."""

  kind = 'deterministic'
  supports_update = True

  def collect(self, context: types.ContextBatch) -> types.NaturalParameters:
    features, _ = self._encoder(context)
    is_evidence = context.mask[..., tf.newaxis] > 0
    total = tf.reduce_sum(tf.where(is_evidence, features, 0.0), axis=-2)
    count = tf.reduce_sum(context.mask, axis=-1)
    precision = tf.broadcast_to(count[..., tf.newaxis], tf.shape(total))
    return types.NaturalParameters(precision=precision, precision_mean=total, count=count)

  def belief(self, parameters: types.NaturalParameters) -> types.Posterior:
    mean = tf.math.divide_no_nan(parameters.precision_mean, parameters.precision)
    return types.Posterior(mean=mean, variance=tf.zeros_like(mean))


class RecurrentEvidence(Evidence):
  """One factor for the whole context, in the order of time: two of them cannot be added."""

  kind = 'recurrent'
  supports_update = False

  def collect(self, context: types.ContextBatch) -> types.NaturalParameters:
    posterior = self._encoder.infer_posterior(context)
    precision = 1.0 / tf.maximum(posterior.variance, gaussian.MIN_VARIANCE)
    return types.NaturalParameters(
      precision=precision,
      precision_mean=precision * posterior.mean,
      count=tf.reduce_sum(context.mask, axis=-1),
    )

  def belief(self, parameters: types.NaturalParameters) -> types.Posterior:
    return gaussian.from_natural_parameters(parameters)


_KINDS: dict[type[encoder.ContextEncoder], type[Evidence]] = {
  encoder.GaussianEncoder: GaussianEvidence,
  encoder.DeterministicEncoder: DeterministicEvidence,
  recurrent_encoder.RecurrentEncoder: RecurrentEvidence,
}


def of(context_encoder: encoder.ContextEncoder) -> Evidence:
  """Returns the adapter of an encoder.

  Raises:
    TypeError: if there is none for its class.
  """
  for encoder_class, evidence_class in _KINDS.items():
    if isinstance(context_encoder, encoder_class):
      return evidence_class(context_encoder)
  known = ', '.join(encoder_class.__name__ for encoder_class in _KINDS)
  raise TypeError(
    f'{type(context_encoder).__name__} cannot be exported, only {known}: how its beliefs travel as '
    'natural parameters is not known; derive a class from Evidence for it, or bind '
    'Training.export_interval = None to train without exports'
  )
