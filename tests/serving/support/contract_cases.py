"""What TF Serving answers, as a table: requests to Predict with the status each one gets.

Taken from TF Serving 2.15.1 with `toy_model` loaded as `pearl`, versions 1 and 2 (policy latest 2,
labels `stable` for 1 and `canary` for 2). Our server always batches; where it differs on purpose,
`ours` says how.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence

import grpc
import numpy as np
from tensorflow.core.framework import tensor_pb2, types_pb2
from tensorflow_serving.apis import predict_pb2

from serving.server import tensors
from tests.serving.support import toy_model

MODEL = 'pearl'
STABLE, CANARY = 1, 2
_CODE = grpc.StatusCode


@dataclasses.dataclass(frozen=True)
class Answer:
  """A status: its code, and a regular expression found in its text."""

  code: grpc.StatusCode
  text: str = '^'


OK = Answer(_CODE.OK)


@dataclasses.dataclass(frozen=True)
class Case:
  """One row.

  Attributes:
    name: of the test.
    request: makes the request.
    stock: what TF Serving answers without batching.
    batched: what it answers with batching, if that differs.
    ours: what our server answers, if that differs on purpose.
  """

  name: str
  request: Callable[[], predict_pb2.PredictRequest]
  stock: Answer
  batched: Answer | None = None
  ours: Answer | None = None

  def answer(self, *, is_stock: bool, is_batched: bool) -> Answer:
    """Returns what a server must answer."""
    if not is_stock and self.ours is not None:
      return self.ours
    return self.batched if is_batched and self.batched is not None else self.stock


def predict(
  signature: str = '',
  inputs: Mapping[str, np.ndarray | tensor_pb2.TensorProto] | None = None,
  *,
  model: str = MODEL,
  version: int | None = None,
  label: str | None = None,
  output_filter: Sequence[str] = (),
) -> predict_pb2.PredictRequest:
  """Makes a request; arrays are sent as `tensor_content`."""
  request = predict_pb2.PredictRequest(output_filter=output_filter)
  request.model_spec.name = model
  request.model_spec.signature_name = signature
  if version is not None:
    request.model_spec.version.value = version
  if label is not None:
    request.model_spec.version_label = label
  for name, value in (inputs or {}).items():
    proto = value if isinstance(value, tensor_pb2.TensorProto) else tensors.encode(value)
    request.inputs[name].CopyFrom(proto)
  return request


def context(rows: int = 1, length: int = 3) -> dict[str, np.ndarray]:
  """Returns valid inputs of `encode`, all ones."""
  return {
    'context': np.ones((rows, length, toy_model.CONTEXT_SIZE), np.float32),
    'num_transitions': np.full(rows, length, np.int32),
  }


def evidence(rows: int = 1) -> dict[str, np.ndarray]:
  """Returns valid inputs of `update`."""
  latent = np.ones((rows, toy_model.LATENT_SIZE), np.float32)
  return context(rows) | {
    'eta': latent,
    'precision': latent,
    'prior_count': np.zeros(rows, np.int32),
  }


def acting(rows: int = 1) -> dict[str, np.ndarray]:
  """Returns valid inputs of `act`, all ones."""
  return {
    'observation': np.ones((rows, toy_model.OBSERVATION_SIZE), np.float32),
    'z': np.ones((rows, toy_model.LATENT_SIZE), np.float32),
  }


def values(rows: int = 1, size: int = 1) -> dict[str, np.ndarray]:
  """Returns valid inputs of the signatures that take `values`."""
  return {'values': np.ones((rows, size), np.float32)}


def message(shape: Sequence[int], dtype: int = types_pb2.DT_FLOAT, **fields) -> object:
  """Makes a TensorProto by hand, such as a wrong one."""
  proto = tensor_pb2.TensorProto(dtype=dtype, **fields)
  for size in shape:
    proto.tensor_shape.dim.add().size = size
  return proto


def _without_spec() -> predict_pb2.PredictRequest:
  request = predict('act', acting())
  request.ClearField('model_spec')
  return request


def _with(inputs: dict, **changes) -> dict:
  """Returns inputs with some replaced or, by None, left out."""
  return {name: value for name, value in (inputs | changes).items() if value is not None}


def _invalid(text: str) -> Answer:
  return Answer(_CODE.INVALID_ARGUMENT, text)


_COUNTS = (
  r'input size does not match signature: {sent}!={known} len\(\{{.*\}}\) != len\(\{{.*\}}\)\.'
  r' Sent extra: \{{{extra}\}}\. Missing but required: \{{{missing}\}}\.'
)
_ONES = np.ones((1, 2), np.float32)

FINDING = (
  Case('no_spec', _without_spec, _invalid('^Missing ModelSpec$')),
  Case('empty_name', lambda: predict(model=''), _invalid('^ModelSpec has no name specified.$')),
  Case(
    'unknown_model',
    lambda: predict('act', acting(), model='nope'),
    Answer(_CODE.NOT_FOUND, r'^Servable not found for request: Latest\(nope\)$'),
  ),
  Case(
    'unknown_version',
    lambda: predict('act', acting(), version=7),
    Answer(_CODE.NOT_FOUND, r'^Servable not found for request: Specific\(pearl, 7\)$'),
  ),
  Case(
    'unknown_label',
    lambda: predict('act', acting(), label='nowhere'),
    _invalid('^Unrecognized servable version label: nowhere$'),
  ),
  Case(
    'unknown_signature',
    lambda: predict('nosuch', acting()),
    Answer(_CODE.FAILED_PRECONDITION, '^Serving signature key "nosuch" not found.$'),
  ),
  Case(
    'unknown_output',
    lambda: predict('encode', context(), output_filter=['nope']),
    _invalid(
      r'^output tensor alias not found in signature: nope Outputs expected to be in the set \{.*\}'
    ),
  ),
  Case(
    'output_twice',
    lambda: predict('encode', context(), output_filter=['mean', 'mean']),
    _invalid('^duplicate output tensor alias: mean$'),
  ),
  Case(
    'no_outputs',
    lambda: predict('nothing', values()),
    _invalid('^Must specify at least one target to fetch or execute.$'),
  ),
)

INPUTS = (
  Case(
    'missing_input',
    lambda: predict('update', _with(evidence(), prior_count=None)),
    _invalid(_COUNTS.format(sent=4, known=5, extra='', missing='prior_count')),
  ),
  Case(
    'extra_input',
    lambda: predict('act', acting() | {'more': _ONES}),
    _invalid(_COUNTS.format(sent=3, known=2, extra='more', missing='')),
  ),
  Case(
    'misnamed_input',
    lambda: predict('act', _with(acting(), z=None, latent=_ONES)),
    _invalid(
      r'^Signature input alias: z\(feed name: .*\) not found in request and no default value'
      ' provided'
    ),
  ),
  Case(
    'wrong_dtype',
    lambda: predict('act', acting() | {'z': _ONES.astype(np.float64)}),
    _invalid(r'^Expects arg\[\d\] to be float but double is provided'),
  ),
  Case(
    'short_content',
    lambda: predict('act', acting() | {'z': message((1, 2), tensor_content=b'\0' * 4)}),
    _invalid('^tensor parsing error: z'),
  ),
  Case(
    'no_dtype',
    lambda: predict('act', acting() | {'z': message((1, 2), 0, float_val=[1, 1])}),
    _invalid('^tensor parsing error: z'),
  ),
  Case(
    'negative_dimension',
    lambda: predict('act', acting() | {'z': message((1, -2), float_val=[1, 1])}),
    _invalid('^tensor parsing error: z'),
  ),
  Case(
    'wrong_width',
    lambda: predict('act', acting() | {'observation': np.ones((1, 4), np.float32)}),
    _invalid(r'\[1,4\] is not compatible with expected shape \[\?,3\]'),
  ),
  Case(
    'wrong_rank',
    lambda: predict('act', acting() | {'observation': np.ones((1, 1, 3), np.float32)}),
    _invalid(r'\[1,1,3\] is not compatible with expected shape \[\?,3\]'),
  ),
  Case(
    'wrong_width_met_by_an_op',
    lambda: predict('multiply', {'matrix': np.ones((1, 24), np.float32)}),
    _invalid(r'Matrix size-incompatible: In\[0\]: \[1,24\], In\[1\]: \[3,2\]'),
  ),
  Case(
    'rows_differ_and_are_checked',
    lambda: predict('act', acting(2) | {'z': _ONES}),
    _invalid('reshape'),
    batched=_invalid(r'^Batching Run\(\) input tensors must have equal 0th-dimension size'),
  ),
  Case(
    'rows_differ_and_are_broadcast',
    lambda: predict(
      'add', {'left': np.ones((2, 1), np.float32), 'right': np.ones((1, 1), np.float32)}
    ),
    OK,
    batched=_invalid(r'^Batching Run\(\) input tensors must have equal 0th-dimension size'),
  ),
  Case(
    'assertion_in_the_graph',
    lambda: predict('strict', {'values': np.array([[np.nan, 1]], np.float32)}),
    _invalid('values must be finite'),
  ),
)

ACCEPTED = (
  Case('default_signature', lambda: predict('', context()), OK),
  Case('no_rows', lambda: predict('encode', context(0)), OK),
  Case('no_transitions', lambda: predict('encode', context(1, 0)), OK),
  Case(
    'typed_fields',
    lambda: predict('act', acting() | {'z': tensors.encode(_ONES, as_content=False)}),
    OK,
  ),
  Case('splat', lambda: predict('act', acting() | {'z': message((1, 2), float_val=[1])}), OK),
  Case(
    'by_label',
    lambda: predict('act', acting(), label='stable'),
    OK,
    ours=_invalid('^Unrecognized servable version label: stable$'),
  ),
  Case('by_version', lambda: predict('act', acting(), version=1), OK),
  Case(
    'large_request',
    lambda: predict('add', {name: np.ones((200, 1), np.float32) for name in ('left', 'right')}),
    OK,
    batched=_invalid('^Task size 200 is larger than maximum input batch size 4$'),
    ours=OK,
  ),
)

# With batching TF Serving fails calls that cannot be put together; ours runs them alone.
BATCHING = (
  Case(
    'no_inputs',
    lambda: predict('constant'),
    OK,
    batched=_invalid(r'^Batching Run\(\) must have at least one input tensor'),
    ours=OK,
  ),
  Case(
    'no_dimension',
    lambda: predict('multiply', {'matrix': np.ones((), np.float32)}),
    _invalid(r'In\[0\]'),
    batched=_invalid(r'^Batching Run\(\) input tensors must have at least one dimension'),
    ours=_invalid(r'In\[0\]'),
  ),
  Case(
    'output_without_rows',
    lambda: predict('total', values(2)),
    OK,
    batched=Answer(_CODE.FAILED_PRECONDITION),
    ours=OK,
  ),
)

PREDICT = FINDING + INPUTS + ACCEPTED + BATCHING
