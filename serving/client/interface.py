"""What a client must know of a model, read from its signatures.

This module owns the sizes and how they follow from GetModelMetadata; no manifest is needed, which a
remote client could not read.
"""

from typing import NamedTuple

from tensorflow.core.protobuf import meta_graph_pb2

from serving.client import errors

# The signatures a session needs, each with the inputs it sends; `update` may be missing.
REQUIRED = {
  'encode': ('context', 'num_transitions'),
  'sample_z': ('eta', 'precision', 'count', 'latent_tag', 'seed'),
  'act': ('observation', 'z', 'latent_tag'),
}


class Interface(NamedTuple):
  """Sizes of one version of a model.

  Attributes:
    observation_size: `O`.
    action_size: `A`; actions are in [-1, 1].
    latent_size: `L`.
    context_size: `C`, numbers per transition.
    has_update: whether there is a signature `update`. That a model refuses it (a recurrent encoder)
      shows only when it is called.
    has_act_sample: whether actions can be sampled.
  """

  observation_size: int
  action_size: int
  latent_size: int
  context_size: int
  has_update: bool
  has_act_sample: bool

  @property
  def uses_next_observation(self) -> bool:
    """Whether a transition for the encoder includes the next observation."""
    return self.context_size > self.observation_size + self.action_size + 1


def from_signatures(
  signatures: meta_graph_pb2.SignatureDef | dict[str, meta_graph_pb2.SignatureDef], model: str
) -> Interface:
  """Reads the sizes.

  Args:
    signatures: mapping of `SignatureDefMap`.
    model: name of the model, for messages.

  Raises:
    ModelMismatchError: if these are not the signatures of a PEARL model.
  """
  for name, inputs in REQUIRED.items():
    if name not in signatures:
      raise errors.ModelMismatchError(
        f'model {model!r} has no signature {name!r}, only {sorted(signatures)}: is it an export of '
        'encoder and policy in one?'
      )
    missing = sorted(set(inputs) - set(signatures[name].inputs))
    if missing:
      raise errors.ModelMismatchError(f'signature {name!r} of model {model!r} lacks {missing}')
  found = Interface(
    observation_size=_width(signatures['act'].inputs, 'observation', model),
    action_size=_width(signatures['act'].outputs, 'action', model),
    latent_size=_width(signatures['act'].inputs, 'z', model),
    context_size=_width(signatures['encode'].inputs, 'context', model),
    has_update='update' in signatures,
    has_act_sample='act_sample' in signatures,
  )
  short = found.observation_size + found.action_size + 1
  if found.context_size not in (short, short + found.observation_size):
    raise errors.ModelMismatchError(
      f'model {model!r} takes transitions of {found.context_size} numbers; with observations of '
      f'{found.observation_size} and actions of {found.action_size} they should have {short}, or '
      f'{short + found.observation_size} with the next observation'
    )
  return found


def _width(tensors: dict[str, meta_graph_pb2.TensorInfo], name: str, model: str) -> int:
  dimensions = tensors[name].tensor_shape.dim if name in tensors else ()
  if not dimensions or dimensions[-1].size < 1:
    raise errors.ModelMismatchError(
      f'model {model!r} does not tell the width of {name!r}, the last dimension of its shape'
    )
  return dimensions[-1].size
