"""The one exception that a client of the server sees, as a gRPC code and a text.

Raised by the server core and the decoding of tensors, turned into an answer by the gRPC and REST
fronts. Needs no TensorFlow, so that a client may use it as well.
"""

import grpc

MAX_MESSAGE_LENGTH = 1024
TRUNCATED = '...TRUNCATED'
_BY_NUMBER = {code.value[0]: code for code in grpc.StatusCode}


class ServingError(Exception):
  """A failed request or load.

  Attributes:
    code: grpc.StatusCode; never OK.
    message: Text for the client, cut like TensorFlow Serving's at 1024 characters.
  """

  def __init__(self, code: grpc.StatusCode, message: str):
    super().__init__(code, message)
    if code is grpc.StatusCode.OK:
      raise ValueError(f'an error must not have the code OK; its message is {message!r}')
    if len(message) > MAX_MESSAGE_LENGTH:
      message = message[:MAX_MESSAGE_LENGTH] + TRUNCATED
    self.code = code
    self.message = message

  @property
  def number(self) -> int:
    """The code as a number, as in ModelVersionStatus.status.error_code."""
    return self.code.value[0]

  def __str__(self) -> str:
    return f'{self.code.name}: {self.message}'


def from_exception(error: Exception) -> ServingError:
  """Returns the error that a client should see for any exception.

  Exceptions of TensorFlow keep their code and message; what nobody foresaw is INTERNAL.

  Args:
    error: A ServingError, a `tf.errors.OpError` (known by its `error_code`) or any other exception.
  """
  if isinstance(error, ServingError):
    return error
  number = getattr(error, 'error_code', None)
  if number in _BY_NUMBER and number != 0:
    return ServingError(_BY_NUMBER[number], str(getattr(error, 'message', error)))
  return ServingError(grpc.StatusCode.INTERNAL, f'{type(error).__name__}: {error}')


def invalid_argument(message: str) -> ServingError:
  """Returns an INVALID_ARGUMENT."""
  return ServingError(grpc.StatusCode.INVALID_ARGUMENT, message)


def not_found(message: str) -> ServingError:
  """Returns a NOT_FOUND."""
  return ServingError(grpc.StatusCode.NOT_FOUND, message)


def failed_precondition(message: str) -> ServingError:
  """Returns a FAILED_PRECONDITION."""
  return ServingError(grpc.StatusCode.FAILED_PRECONDITION, message)


def resource_exhausted(message: str) -> ServingError:
  """Returns a RESOURCE_EXHAUSTED."""
  return ServingError(grpc.StatusCode.RESOURCE_EXHAUSTED, message)
