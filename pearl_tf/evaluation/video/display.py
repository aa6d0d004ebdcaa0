"""How MuJoCo draws on a machine without a display: through EGL where it works, else OSMesa.

This module owns the choice and the message when there is none; it draws nothing. It must be called
before the first picture, because the choice holds for the process.
"""

import logging
import os
import subprocess
import sys

BACKENDS = ('egl', 'osmesa')
_VARIABLE = 'MUJOCO_GL'
_PLATFORM = 'PYOPENGL_PLATFORM'
# In a process of its own: PyOpenGL binds itself to the first platform it loads, for good.
_TRIAL = """
import importlib, sys
import mujoco
gl = importlib.import_module('mujoco.' + sys.argv[1])
context = gl.GLContext(64, 64)
context.make_current()
mujoco.MjrContext(mujoco.MjModel.from_xml_string('<mujoco/>'), mujoco.mjtFontScale.mjFONTSCALE_100)
"""
# Software rendering compiles its shaders first, which takes half a minute on a busy machine.
_TRIAL_SECONDS = 180


class DisplayError(RuntimeError):
  """MuJoCo cannot draw here; the message says what was tried and what to install."""


def choose_backend() -> str:
  """Finds a way to draw off-screen and makes it that of this process.

  What the environment variable MUJOCO_GL names is tried alone, if it is set.

  Returns:
    'egl', 'osmesa', or what MUJOCO_GL names.

  Raises:
    DisplayError: If none works.
  """
  wanted = os.environ.get(_VARIABLE)
  failures = {}
  for backend in (wanted,) if wanted else BACKENDS:
    failure = _try(backend)
    if failure is None:
      os.environ.update(_settings(backend))
      # It would say that it lacks a package that makes it faster, which is not needed here.
      logging.getLogger('OpenGL.acceleratesupport').setLevel(logging.WARNING)
      return backend
    failures[backend] = failure
  tried = '\n'.join(f'  {backend}: {failure}' for backend, failure in failures.items())
  unset = f', and unset {_VARIABLE}' if wanted else ''
  raise DisplayError(
    f'MuJoCo cannot draw here, neither on a graphics card nor in software. Tried:\n{tried}\n'
    'Install one of the two (Debian, Ubuntu: apt-get install libegl1 libgl1-mesa-dri for EGL, or '
    f'libosmesa6 for OSMesa){unset}.'
  )


def _settings(backend: str) -> dict[str, str]:
  """Returns the environment variables that select a backend."""
  platform = {_PLATFORM: backend} if backend in BACKENDS else {}
  return {_VARIABLE: backend, **platform}


def _try(backend: str) -> str | None:
  """Draws nothing with a backend; returns what went wrong, or None."""
  try:
    done = subprocess.run(
      [sys.executable, '-c', _TRIAL, backend],
      env={**os.environ, **_settings(backend)},
      capture_output=True,
      text=True,
      check=False,
      timeout=_TRIAL_SECONDS,
    )
  except subprocess.TimeoutExpired:
    return f'no answer within {_TRIAL_SECONDS} s'
  if done.returncode == 0:
    return None
  lines = done.stderr.strip().splitlines()
  return lines[-1] if lines else f'ended with exit code {done.returncode}'
