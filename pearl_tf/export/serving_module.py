"""The endpoint as TensorFlow modules with signatures, ready for `tf.saved_model.save`.

This module owns names, types and free dimensions of the signatures, and which of them each servable
has. The networks stay outside of the modules: Keras would save its own functions beside ours.
"""

import collections
from collections.abc import Callable

import tensorflow as tf

from pearl_tf.export import endpoint as endpoint_lib

PEARL = 'pearl'
ENCODER = 'pearl_encoder'
POLICY = 'pearl_policy'
DEFAULT = tf.saved_model.DEFAULT_SERVING_SIGNATURE_DEF_KEY

_ENCODER_SIGNATURES = ('encode', 'update')
_POLICY_SIGNATURES = ('sample_z', 'act', 'act_sample')
# By servable: signatures, and which of them answers a call that names none.
SERVABLES = {
  PEARL: ((*_ENCODER_SIGNATURES, *_POLICY_SIGNATURES, 'adapt_and_act'), 'encode'),
  ENCODER: (_ENCODER_SIGNATURES, 'encode'),
  POLICY: (_POLICY_SIGNATURES, 'act'),
}
INPUTS = {
  'encode': ('context', 'num_transitions'),
  'update': ('context', 'num_transitions', 'eta', 'precision', 'count', 'latent_tag'),
  'sample_z': ('eta', 'precision', 'count', 'latent_tag', 'seed'),
  'act': ('observation', 'z', 'latent_tag'),
  'act_sample': ('observation', 'z', 'latent_tag', 'seed'),
  'adapt_and_act': ('context', 'num_transitions', 'observation', 'seed'),
}


class Servable(tf.Module):
  """What is saved under one name: some signatures and the variables they read."""

  def __init__(
    self,
    signatures: dict[str, tf.types.experimental.ConcreteFunction],
    variables: list[tf.Variable],
    *,
    name: str,
  ):
    """Keeps both.

    Args:
      signatures: concrete functions by signature name, `serving_default` among them.
      variables: everything they capture.
      name: name of the model.
    """
    super().__init__(name=name)
    self.served_variables = variables
    self._signatures = collections.OrderedDict(signatures)

  @property
  def signatures(self) -> dict[str, tf.types.experimental.ConcreteFunction]:
    """Concrete functions by signature name."""
    return dict(self._signatures)

  def inputs(self, signature: str) -> dict[str, tf.TensorSpec]:
    """Returns the specs of a signature's inputs by name."""
    arguments, _ = self._signatures[signature].structured_input_signature
    return {spec.name: spec for spec in arguments}

  def save(self, directory: str) -> None:
    """Writes a SavedModel with the tag `serve`."""
    tf.saved_model.save(self, directory, signatures=self.signatures)


def input_specs(endpoint: endpoint_lib.Endpoint) -> dict[str, tf.TensorSpec]:
  """Returns the spec of every input by its name, the same in all signatures that have it."""
  observation_size, latent_size = endpoint.domain.observation_size, endpoint.latent_size
  shapes = {
    'context': ([None, None, endpoint.context_features], tf.float32),
    'num_transitions': ([None], tf.int32),
    'eta': ([None, latent_size], tf.float32),
    'precision': ([None, endpoint.precision_size], tf.float32),
    'count': ([None], tf.int32),
    'latent_tag': ([None], tf.int64),
    'observation': ([None, observation_size], tf.float32),
    'z': ([None, latent_size], tf.float32),
    'seed': ([None, 2], tf.int32),
  }
  return {name: tf.TensorSpec(shape, dtype, name) for name, (shape, dtype) in shapes.items()}


def servables(endpoint: endpoint_lib.Endpoint) -> dict[str, Servable]:
  """Traces every signature once and returns the three servables over the same variables."""
  specs = input_specs(endpoint)
  traced = {
    signature: trace(getattr(endpoint, signature), [specs[name] for name in names])
    for signature, names in INPUTS.items()
  }
  variables = {
    PEARL: [*endpoint.encoder_variables, *endpoint.actor_variables[1:]],
    ENCODER: endpoint.encoder_variables,
    POLICY: endpoint.actor_variables,
  }
  result = {}
  for name, (signatures, default) in SERVABLES.items():
    chosen = {signature: traced[signature] for signature in signatures}
    result[name] = Servable(chosen | {DEFAULT: traced[default]}, variables[name], name=name)
  return result


def trace(
  compute: Callable[..., endpoint_lib.Tensors], specs: list[tf.TensorSpec]
) -> tf.types.experimental.ConcreteFunction:
  """Returns a concrete function that refuses inputs of other shapes, then computes.

  Args:
    compute: takes tensors and returns tensors by name.
    specs: of its arguments, in order, named.
  """

  # Never compiled by XLA: a stock TensorFlow Serving refuses to run that. AutoGraph would find
  # nothing to convert, and take many times as long as all the rest.
  @tf.function(input_signature=specs, autograph=False)
  def signature(*inputs):
    # TensorFlow Serving holds no input against the shapes of the signature.
    inputs = [tf.ensure_shape(x, spec.shape) for x, spec in zip(inputs, specs, strict=True)]
    with tf.control_dependencies([_assert_same_rows(inputs, specs)]):
      return compute(*[tf.identity(x) for x in inputs])

  return signature.get_concrete_function()


def _assert_same_rows(inputs: list[tf.Tensor], specs: list[tf.TensorSpec]) -> tf.Operation:
  """Returns an operation that fails unless all inputs have as many rows.

  A single row would broadcast silently. A reshape to the common number of rows would be nicer, but
  Grappler takes it for an identity and removes it. In a batch that a server has put together the
  rows always agree, so this cannot make the call of one client fail for another's.
  """
  rows = tf.stack([tf.shape(x)[0] for x in inputs])
  names = ', '.join(spec.name for spec in specs)
  return tf.debugging.Assert(
    tf.reduce_all(rows == rows[0]),
    [f'all inputs must have the same number of rows; rows of {names}:', rows],
    summarize=len(specs),
  )
