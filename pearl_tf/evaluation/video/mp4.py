"""MP4 files that exist completely or not at all.

This module owns the encoder and the check that it is installed (extra `media`); what is on the
frames is the caller's.
"""

import contextlib
import os
import pathlib

import numpy as np

from pearl_tf.data import files

_INSTALL = "pip install -e '.[media]'"
# x264 wants even sizes; imageio would otherwise stretch frames to multiples of 16.
_BLOCK = 2
_QUALITY = 8


class MediaError(RuntimeError):
  """Videos cannot be encoded here; the message says what to install."""


def require() -> None:
  """Checks that videos can be encoded, before anything is rendered.

  Raises:
    MediaError: If a package or the encoder is missing.
  """
  try:
    import imageio.v2  # noqa: F401
    import imageio_ffmpeg
    import PIL.ImageDraw  # noqa: F401
  except ImportError as error:
    raise MediaError(
      f'videos need imageio, imageio-ffmpeg and pillow ({error}); {_INSTALL}'
    ) from error
  try:
    imageio_ffmpeg.get_ffmpeg_exe()
  except RuntimeError as error:
    raise MediaError(
      f'imageio-ffmpeg finds no ffmpeg ({error}); install ffmpeg, or reinstall: {_INSTALL}'
    ) from error


class Mp4Writer:
  """Encodes frames into an MP4; a context manager.

  The file appears under its name when the context ends without an error, also in place of an older
  one. After an error or Ctrl-C nothing is left.
  """

  def __init__(self, path: str | os.PathLike, *, fps: float):
    """Names the file; nothing is written yet.

    Args:
      path: ends in '.mp4'; its folder is made.
      fps: frames per second.

    Raises:
      ValueError: if `fps` is not positive or the name is another.
      MediaError: if a package is missing.
    """
    if not fps > 0:
      raise ValueError(f'fps must be positive, got {fps}')
    self.path = pathlib.Path(path)
    if self.path.suffix != '.mp4':
      raise ValueError(f'the name of a video must end in .mp4, got {self.path.name!r}')
    require()
    self._fps = fps
    self._partial = self.path.with_name(f'.partial-{self.path.name}')

  def __enter__(self) -> 'Mp4Writer':
    import imageio.v2

    self.path.parent.mkdir(parents=True, exist_ok=True)
    self._writer = imageio.v2.get_writer(
      self._partial,
      format='FFMPEG',
      mode='I',
      fps=self._fps,
      codec='libx264',
      quality=_QUALITY,
      macro_block_size=_BLOCK,
      ffmpeg_log_level='error',
    )
    return self

  def add(self, frame: np.ndarray) -> None:
    """Appends a frame, `[H, W, 3] uint8`, of the same even size as the others."""
    with files.explained(self.path):
      self._writer.append_data(frame)

  def __exit__(self, error_class, *unused_error) -> None:
    if error_class is None:
      self._writer.close()
      os.replace(self._partial, self.path)
      return
    # Ctrl-C reaches the encoder too, so its pipe may be closed already; the cause is on its way up.
    with contextlib.suppress(OSError):
      self._writer.close()
    self._partial.unlink(missing_ok=True)
