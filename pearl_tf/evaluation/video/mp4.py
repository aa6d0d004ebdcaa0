"""MP4 files that exist completely or not at all.

This module owns the encoder and the check that it is installed (extra `media`); what is on the
frames is the caller's.
"""

import contextlib
import os
import pathlib
import shutil

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
    self._num_frames = 0
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
      # This process tells what is lost; the encoder would add lines about a frame cut by Ctrl-C.
      ffmpeg_log_level='fatal',
    )
    return self

  def add(self, frame: np.ndarray) -> None:
    """Appends a frame, `[H, W, 3] uint8`, of the same even size as the others."""
    with files.explained(self.path):
      self._writer.append_data(frame)
    self._num_frames += 1

  def __exit__(self, error_class, *unused_error) -> None:
    try:
      # The encoder may have ended before its pipe was closed; then the cause is on its way up.
      with contextlib.suppress(OSError) if error_class else files.explained(self.path):
        self._writer.close()
      if error_class is None:
        self._check()
        os.replace(self._partial, self.path)
    finally:
      self._partial.unlink(missing_ok=True)

  def _check(self) -> None:
    """The encoder's exit status is not told, so its file is asked."""
    import imageio_ffmpeg

    try:
      written, _ = imageio_ffmpeg.count_frames_and_secs(str(self._partial))
    except (OSError, RuntimeError):
      written = 0
    if written != self._num_frames:
      raise files.FileError(
        f'{self.path} cannot be written: {written} of {self._num_frames} frames arrived in it; '
        f'{shutil.disk_usage(self.path.parent).free / 1e6:,.0f} MB are free on its disk'
      )
