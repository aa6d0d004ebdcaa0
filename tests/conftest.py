"""What a whole session of tests shares: one temporary folder, gone at the end.

Processes that a test kills cannot remove what they made (TensorFlow writes a file for every
function that AutoGraph converts), so all of them make it below one folder.
"""

import os
import shutil
import tempfile

_FOLDER = 'PEARL_TF_TEST_FOLDER'


def pytest_configure(config):
  del config
  if _FOLDER not in os.environ:  # A worker of pytest-xdist uses that of the session.
    os.environ[_FOLDER] = os.environ['TMPDIR'] = tempfile.mkdtemp(prefix='pearl-tf-tests-')
  tempfile.tempdir = os.environ['TMPDIR']


def pytest_unconfigure(config):
  if not hasattr(config, 'workerinput'):
    shutil.rmtree(os.environ[_FOLDER], ignore_errors=True)
