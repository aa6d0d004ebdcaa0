"""TensorFlow's C library by `ctypes`: sessions on a SavedModel, and which kernels are registered.

The library of the wheel holds the C++ that TensorFlow Serving links, so a process that loads it
without importing TensorFlow's Python is as near to the stock server as the wheel comes: Python's
kernels are absent there. This module therefore must not import `tensorflow`.
"""

import ctypes
import functools
import importlib.util
import pathlib
from collections.abc import Mapping, Sequence

import numpy as np

# TF_Code, the same numbers as gRPC's.
INVALID_ARGUMENT = 3
_LIBRARY = 'libtensorflow_cc.so.2'
_DISABLE_XLA = '_ZN10tensorflow21DisableXlaCompilationEv'  # tensorflow::DisableXlaCompilation()
# A serialized ConfigProto: intra_op_parallelism_threads = 1, inter_op_parallelism_threads = 1.
_ONE_THREAD = b'\x10\x01\x28\x01'
# TF_DataType of every NumPy type that travels as plain bytes.
_TYPE_CODES = {
  np.dtype(name): code
  for name, code in {
    'float32': 1,
    'float64': 2,
    'int32': 3,
    'uint8': 4,
    'int16': 5,
    'int8': 6,
    'complex64': 8,
    'int64': 9,
    'bool': 10,
    'uint16': 17,
    'complex128': 18,
    'float16': 19,
    'uint32': 22,
    'uint64': 23,
  }.items()
}
_DTYPES = {code: dtype for dtype, code in _TYPE_CODES.items()}


class Error(Exception):
  """What the C library answered instead of a result.

  Attributes:
    code: TF_Code; 3 is INVALID_ARGUMENT, 13 is INTERNAL.
    message: its text.
  """

  def __init__(self, code: int, message: str):
    super().__init__(f'code {code}: {message}')
    self.code = code
    self.message = message


def can_feed(dtype: np.dtype) -> bool:
  """Tells whether arrays of a type travel as plain bytes, which strings do not."""
  return dtype in _TYPE_CODES


class _Buffer(ctypes.Structure):
  _fields_ = [
    ('data', ctypes.c_void_p),
    ('length', ctypes.c_size_t),
    ('deallocator', ctypes.c_void_p),
  ]


class _Output(ctypes.Structure):
  _fields_ = [('operation', ctypes.c_void_p), ('index', ctypes.c_int)]


_POINTER = ctypes.c_void_p
_OUTPUTS = ctypes.POINTER(_Output)
_POINTERS = ctypes.POINTER(ctypes.c_void_p)
_BUFFER = ctypes.POINTER(_Buffer)
_STRINGS = ctypes.POINTER(ctypes.c_char_p)
_INT = ctypes.c_int
# name: (result, arguments), from tensorflow/c/c_api.h, tf_tensor.h and tf_status.h.
_FUNCTIONS = {
  'TF_AllocateTensor': (
    _POINTER,
    [_INT, ctypes.POINTER(ctypes.c_int64), _INT, ctypes.c_size_t],
  ),
  'TF_CloseSession': (None, [_POINTER, _POINTER]),
  'TF_DeleteBuffer': (None, [_BUFFER]),
  'TF_DeleteGraph': (None, [_POINTER]),
  'TF_DeleteSession': (None, [_POINTER, _POINTER]),
  'TF_DeleteSessionOptions': (None, [_POINTER]),
  'TF_DeleteStatus': (None, [_POINTER]),
  'TF_DeleteTensor': (None, [_POINTER]),
  'TF_Dim': (ctypes.c_int64, [_POINTER, _INT]),
  'TF_GetAllOpList': (_BUFFER, []),
  'TF_GetAllRegisteredKernels': (_BUFFER, [_POINTER]),
  'TF_GetCode': (_INT, [_POINTER]),
  'TF_GraphOperationByName': (_POINTER, [_POINTER, ctypes.c_char_p]),
  'TF_LoadSessionFromSavedModel': (
    _POINTER,
    [_POINTER, _POINTER, ctypes.c_char_p, _STRINGS, _INT, _POINTER, _BUFFER, _POINTER],
  ),
  'TF_Message': (ctypes.c_char_p, [_POINTER]),
  'TF_NewGraph': (_POINTER, []),
  'TF_NewSessionOptions': (_POINTER, []),
  'TF_NewStatus': (_POINTER, []),
  'TF_NumDims': (_INT, [_POINTER]),
  'TF_SessionRun': (
    None,
    [_POINTER, _POINTER, _OUTPUTS, _POINTERS, _INT, _OUTPUTS, _POINTERS, _INT]
    + [_POINTERS, _INT, _POINTER, _POINTER],
  ),
  'TF_SetConfig': (None, [_POINTER, ctypes.c_char_p, ctypes.c_size_t, _POINTER]),
  'TF_TensorByteSize': (ctypes.c_size_t, [_POINTER]),
  'TF_TensorData': (_POINTER, [_POINTER]),
  'TF_TensorType': (_INT, [_POINTER]),
}


@functools.cache
def library() -> ctypes.CDLL:
  """Loads the wheel's C library; in a process with TensorFlow's Python it is the one in use.

  Raises:
    FileNotFoundError: if no installed TensorFlow has it.
  """
  spec = importlib.util.find_spec('tensorflow')  # Finds without importing.
  if spec is None or spec.origin is None:
    raise FileNotFoundError('TensorFlow is not installed; install the package with its extras')
  path = pathlib.Path(spec.origin).with_name(_LIBRARY)
  if not path.is_file():
    raise FileNotFoundError(f'{path} is missing; install a TensorFlow 2.15 wheel for Linux')
  loaded = ctypes.CDLL(str(path))
  for name, (result, arguments) in _FUNCTIONS.items():
    function = getattr(loaded, name)
    function.restype = result
    function.argtypes = arguments
  return loaded


def disable_xla() -> None:
  """Makes functions with `jit_compile=True` fail for the rest of the process.

  The stock server does so when it starts: such a function then answers INTERNAL.
  """
  function = getattr(library(), _DISABLE_XLA)
  function.restype = None
  function.argtypes = []
  function()


def registered_kernels() -> bytes:
  """Returns the serialized `tensorflow.KernelList` of all kernels in this process."""
  with _Status() as status:
    buffer = library().TF_GetAllRegisteredKernels(status.pointer)
    status.check()
    return _taken(buffer)


def registered_ops() -> bytes:
  """Returns the serialized `tensorflow.OpList` of all ops in this process."""
  return _taken(library().TF_GetAllOpList())


def _taken(buffer: _BUFFER) -> bytes:
  try:
    return ctypes.string_at(buffer.contents.data, buffer.contents.length)
  finally:
    library().TF_DeleteBuffer(buffer)


class Session:
  """A session on a SavedModel, with one thread as the result must not depend on their number.

  Args:
    version_dir: folder with `saved_model.pb`.
    tags: the tags of the graph to load.

  Raises:
    Error: if the C library cannot load it.
  """

  def __init__(self, version_dir: str, *, tags: Sequence[str] = ('serve',)):
    self._lib = library()
    self._graph = self._lib.TF_NewGraph()
    self._session = None
    names = (ctypes.c_char_p * len(tags))(*(tag.encode() for tag in tags))
    options = self._lib.TF_NewSessionOptions()
    try:
      with _Status() as status:
        self._lib.TF_SetConfig(options, _ONE_THREAD, len(_ONE_THREAD), status.pointer)
        status.check()
        self._session = self._lib.TF_LoadSessionFromSavedModel(
          options, None, str(version_dir).encode(), names, len(tags), self._graph, None,
          status.pointer,
        )  # fmt: skip
        status.check()
    except Error:
      self.close()
      raise
    finally:
      self._lib.TF_DeleteSessionOptions(options)

  def __enter__(self) -> 'Session':
    return self

  def __exit__(self, *unused_exception) -> None:
    self.close()

  def close(self) -> None:
    """Frees session and graph; a second call does nothing."""
    if self._session:
      with _Status() as status:
        self._lib.TF_CloseSession(self._session, status.pointer)
        self._lib.TF_DeleteSession(self._session, status.pointer)
      self._session = None
    if self._graph:
      self._lib.TF_DeleteGraph(self._graph)
      self._graph = None

  def run(self, feeds: Mapping[str, np.ndarray], fetches: Sequence[str]) -> list[np.ndarray]:
    """Runs the graph.

    Args:
      feeds: value by tensor name, such as `serving_default_x:0`.
      fetches: tensor names.

    Returns:
      One array for each of `fetches`.

    Raises:
      Error: if a tensor is unknown or the graph fails.
      TypeError: if a value's type does not travel as plain bytes, strings above all.
    """
    values, results = (_POINTER * len(feeds))(), (_POINTER * len(fetches))()
    try:
      for index, value in enumerate(feeds.values()):
        values[index] = self._to_tensor(np.asarray(value))
      with _Status() as status:
        self._lib.TF_SessionRun(
          self._session, None,
          self._outputs(feeds), values, len(feeds),
          self._outputs(fetches), results, len(fetches),
          None, 0, None, status.pointer,
        )  # fmt: skip
        status.check()
      return [self._to_array(tensor) for tensor in results]
    finally:
      for tensor in [*values, *results]:
        if tensor:
          self._lib.TF_DeleteTensor(tensor)

  def _outputs(self, names: Sequence[str] | Mapping[str, np.ndarray]) -> ctypes.Array:
    outputs = (_Output * len(names))()
    for output, name in zip(outputs, names, strict=True):
      node, _, index = name.partition(':')
      output.operation = self._lib.TF_GraphOperationByName(self._graph, node.encode())
      output.index = int(index or 0)
      if not output.operation:
        raise Error(INVALID_ARGUMENT, f'tensor {name} is not in the graph')
    return outputs

  def _to_tensor(self, value: np.ndarray) -> int:
    if not can_feed(value.dtype):
      raise TypeError(f'arrays of {value.dtype} cannot be fed; known are {sorted(_names())}')
    value = np.ascontiguousarray(value).reshape(value.shape)
    dimensions = (ctypes.c_int64 * value.ndim)(*value.shape)
    tensor = self._lib.TF_AllocateTensor(
      _TYPE_CODES[value.dtype], dimensions, value.ndim, value.nbytes
    )
    if value.nbytes:
      ctypes.memmove(self._lib.TF_TensorData(tensor), value.ctypes.data, value.nbytes)
    return tensor

  def _to_array(self, tensor: int) -> np.ndarray:
    code = self._lib.TF_TensorType(tensor)
    if code not in _DTYPES:
      raise TypeError(f'a result of TF_DataType {code} cannot be read; {sorted(_names())} can')
    shape = [self._lib.TF_Dim(tensor, axis) for axis in range(self._lib.TF_NumDims(tensor))]
    size = self._lib.TF_TensorByteSize(tensor)
    data = ctypes.string_at(self._lib.TF_TensorData(tensor), size) if size else b''
    return np.frombuffer(data, _DTYPES[code]).reshape(shape)


class _Status:
  """A TF_Status that is freed with its block."""

  def __enter__(self) -> '_Status':
    self.pointer = library().TF_NewStatus()
    return self

  def __exit__(self, *unused_exception) -> None:
    library().TF_DeleteStatus(self.pointer)

  def check(self) -> None:
    code = library().TF_GetCode(self.pointer)
    if code:
      message = library().TF_Message(self.pointer).decode(errors='replace')
      raise Error(code, message)


def _names() -> list[str]:
  return [dtype.name for dtype in _TYPE_CODES]
