"""How calls are batched, and TensorFlow Serving's file that says so.

The `tensorflow-serving-api` wheel lacks the message BatchingParameters, so it is described here:
names and numbers are those of `session_bundle_config.proto`, and the same files are read.
"""

import dataclasses

from google.protobuf import (
  descriptor_pb2,
  descriptor_pool,
  message,
  message_factory,
  text_format,
  wrappers_pb2,
)

from serving import errors

_PACKAGE = 'pearl.serving.batching'
_INT64, _BOOL = 'Int64Value', 'BoolValue'
# Field: number and type in the standard's wrappers, where the presence of a value matters.
_WRAPPED = {
  'max_batch_size': (1, _INT64),
  'batch_timeout_micros': (2, _INT64),
  'max_enqueued_batches': (3, _INT64),
  'num_batch_threads': (4, _INT64),
  'thread_pool_name': (5, 'StringValue'),
  'enable_large_batch_splitting': (8, _BOOL),
  'max_execution_batch_size': (9, _INT64),
}
# Defaults of TensorFlow Serving.
_MAX_BATCH_SIZE = 1000
_MAX_ENQUEUED_BATCHES = 10


@dataclasses.dataclass(frozen=True, kw_only=True)
class BatchingConfig:
  """What the batcher may do.

  Attributes:
    enabled: Whether calls are put together at all.
    max_batch_size: Rows of a batch; calls are added to it while they fit.
    max_call_size: Rows of one call, which is never split.
    max_batch_elements: Rows times length of a batch of sequences. Their cost grows with it, so that
      a larger batch saves nothing and makes its first call wait for the last.
    allowed_batch_sizes: Ascending; batches are filled up to one of them. Empty for any size, which
      is faster here: nothing is compiled for a size.
    max_queued_calls: Calls that may wait; more are refused.
    max_queued_bytes: Bytes of inputs that may wait.
    pad_variable_length_inputs: Whether sequences of different lengths may share a batch.
    num_threads: Batches that may run at the same time.
    inline_seconds: A lone call that should take less than this runs in the event loop, because
      handing it to a thread and back costs some tenths of a millisecond; 0 for never.
  """

  enabled: bool = True
  max_batch_size: int = 64
  max_call_size: int = 256
  max_batch_elements: int = 4096
  allowed_batch_sizes: tuple[int, ...] = ()
  max_queued_calls: int = 1024
  max_queued_bytes: int = 2**28
  pad_variable_length_inputs: bool = True
  num_threads: int = 1
  inline_seconds: float = 1e-3

  def __post_init__(self):
    for name in (
      'max_batch_size',
      'max_call_size',
      'max_batch_elements',
      'max_queued_calls',
      'max_queued_bytes',
      'num_threads',
    ):
      if getattr(self, name) < 1:
        raise errors.invalid_argument(f'{name} must be positive, got {getattr(self, name)}')
    if self.inline_seconds < 0:
      raise errors.invalid_argument(f'inline_seconds must be >= 0, got {self.inline_seconds}')
    sizes = self.allowed_batch_sizes
    if sizes and (sizes[0] < 1 or sorted(set(sizes)) != list(sizes)):
      raise errors.invalid_argument(f'allowed_batch_sizes must ascend from 1 on, got {list(sizes)}')
    if sizes and sizes[-1] != self.max_batch_size:
      raise errors.invalid_argument(
        f'the last of allowed_batch_sizes, {sizes[-1]}, must equal max_batch_size, '
        f'{self.max_batch_size}'
      )


def from_text(text: str) -> BatchingConfig:
  """Reads BatchingParameters in protobuf's text format, the file of `--batching_parameters_file`.

  `batch_timeout_micros` has no effect: nothing waits for a batch to fill. With
  `enable_large_batch_splitting`, a call above `max_execution_batch_size` runs alone and whole.

  Raises:
    ServingError: INVALID_ARGUMENT if it does not parse or makes no sense.
  """
  parameters = _new_message()
  try:
    text_format.Parse(text, parameters)
  except text_format.ParseError as error:
    raise errors.invalid_argument(f'Invalid protobuf file: BatchingParameters: {error}') from error

  def value_of(field: str, default: int) -> int:
    return getattr(parameters, field).value if parameters.HasField(field) else default

  batch_size = value_of('max_batch_size', _MAX_BATCH_SIZE)
  execution_size = batch_size
  if parameters.enable_large_batch_splitting.value:
    execution_size = value_of('max_execution_batch_size', batch_size)
  return BatchingConfig(
    max_batch_size=execution_size,
    max_call_size=batch_size,
    allowed_batch_sizes=tuple(parameters.allowed_batch_sizes),
    max_queued_calls=batch_size * value_of('max_enqueued_batches', _MAX_ENQUEUED_BATCHES),
    pad_variable_length_inputs=parameters.pad_variable_length_inputs,
    num_threads=value_of('num_batch_threads', 1),
  )


def _new_message() -> message.Message:
  """Returns an empty BatchingParameters, known to a pool of its own only."""
  file = descriptor_pb2.FileDescriptorProto(
    name='pearl_serving_batching.proto',
    package=_PACKAGE,
    syntax='proto3',
    dependency=[wrappers_pb2.DESCRIPTOR.name],
  )
  description = file.message_type.add(name='BatchingParameters')
  kind = descriptor_pb2.FieldDescriptorProto
  for name, (number, wrapper) in _WRAPPED.items():
    description.field.add(
      name=name,
      number=number,
      label=kind.LABEL_OPTIONAL,
      type=kind.TYPE_MESSAGE,
      type_name=f'.google.protobuf.{wrapper}',
    )
  description.field.add(
    name='allowed_batch_sizes', number=6, label=kind.LABEL_REPEATED, type=kind.TYPE_INT64
  )
  description.field.add(
    name='pad_variable_length_inputs', number=7, label=kind.LABEL_OPTIONAL, type=kind.TYPE_BOOL
  )
  pool = descriptor_pool.DescriptorPool()
  pool.AddSerializedFile(wrappers_pb2.DESCRIPTOR.serialized_pb)
  pool.Add(file)
  descriptor = pool.FindMessageTypeByName(f'{_PACKAGE}.BatchingParameters')
  return message_factory.GetMessageClass(descriptor)()
