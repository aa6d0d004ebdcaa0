"""The base class of every test: a clean gin configuration, fixed seeds and a folder of its own."""

import pathlib
import random
import tempfile

import gin
import numpy as np
import tensorflow as tf
from absl.testing import parameterized


class TestCase(parameterized.TestCase, tf.test.TestCase):
  """`tf.test.TestCase` with parameters, isolated from the configuration other tests leave behind.

  gin is cleared before and after each test, because leaked bindings make unrelated tests fail; that
  lives here and not in a conftest so that `python file`, pytest and bazel behave alike.
  """

  # A helper of TensorFlow 1 that unittest would count as a skipped test of every class.
  test_session = None

  def setUp(self):
    super().setUp()
    gin.clear_config()
    self.addCleanup(gin.clear_config)
    random.seed(0)
    np.random.seed(0)
    tf.random.set_seed(0)

  def temp_dir(self) -> pathlib.Path:
    """Returns a new, empty folder that is removed with the test."""
    return pathlib.Path(self.enter_context(tempfile.TemporaryDirectory()))
