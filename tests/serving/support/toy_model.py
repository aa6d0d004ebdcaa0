"""A model small enough to be saved in a test, with signatures for every row of the contract.

Its shapes are those of an agent, its arithmetic is trivial: each answer is the sum over the row
times a factor, so that a test knows the result and which version gave it.
"""

import pathlib

import tensorflow as tf

OBSERVATION_SIZE = 3
LATENT_SIZE = 2
CONTEXT_SIZE = 5
ACTION_SIZE = 2


class ToyModel(tf.Module):
  """The functions behind the signatures.

  Args:
    factor: what every answer is multiplied by.
  """

  def __init__(self, factor: float):
    super().__init__()
    self.factor = tf.Variable(factor, name='factor')
    self.kernel = tf.Variable(tf.ones([OBSERVATION_SIZE, ACTION_SIZE]), name='kernel')

  def encode(self, context, num_transitions):
    """Sums the first `num_transitions` rows of each context."""
    mask = tf.sequence_mask(num_transitions, tf.shape(context)[1])
    total = tf.reduce_sum(tf.where(mask[..., None], context, 0.0), axis=[1, 2])
    mean = self.factor * tf.tile(total[:, None], [1, LATENT_SIZE])
    return {'mean': mean, 'variance': tf.ones_like(mean), 'count': tf.identity(num_transitions)}

  def update(self, context, num_transitions, eta, precision, prior_count):
    """As `encode`, on top of what was there."""
    encoded = self.encode(context, num_transitions)
    return {
      'eta': eta + encoded['mean'],
      'precision': tf.identity(precision),
      'count': prior_count + num_transitions,
    }

  def act(self, observation, z):
    """Adds what observation and latent sum to; a row each, or the graph fails."""
    observation = tf.ensure_shape(observation, [None, OBSERVATION_SIZE])
    z = tf.ensure_shape(tf.reshape(z, [tf.shape(observation)[0], LATENT_SIZE]), [None, LATENT_SIZE])
    total = tf.reduce_sum(observation, 1) + tf.reduce_sum(z, 1)
    return {'action': self.factor * tf.tile(total[:, None], [1, ACTION_SIZE])}

  def add(self, left, right):
    """Adds without looking at the shapes, so that one row is broadcast."""
    return {'sum': self.factor * (left + right)}

  def multiply(self, matrix):
    """Multiplies; its signature promises any shape, so that an op fails over a wrong one."""
    return {'product': self.factor * tf.matmul(matrix, self.kernel)}

  def strict(self, values):
    """Fails over anything but finite numbers."""
    finite = tf.reduce_all(tf.math.is_finite(values))
    with tf.control_dependencies([tf.debugging.Assert(finite, ['values must be finite'])]):
      return {'values': self.factor * values}

  def total(self, values):
    """Sums over the batch, so that no row of the answer belongs to a row of the request."""
    return {'total': self.factor * tf.reduce_sum(values, axis=0, keepdims=True)}

  def constant(self):
    """Takes nothing."""
    return {'factor': tf.reshape(self.factor, [1])}

  def nothing(self, values):
    """Gives nothing."""
    del values
    return {}

  def slow(self, values):
    """Takes ten to thirty milliseconds on an idle machine, without sleeping."""

    def body(step, total):
      return step + 1, tf.reduce_sum(tf.tanh(tf.random.stateless_uniform([50_000], [step, 0])))

    _, total = tf.while_loop(lambda step, _: step < 100, body, (0, 0.0))
    return {'values': values + 0.0 * total}


def signatures(model: ToyModel) -> dict[str, tf.types.experimental.ConcreteFunction]:
  """Traces all signatures, `serving_default` being `encode`."""

  def floats(*shape, name):
    return tf.TensorSpec([None, *shape], tf.float32, name)

  def integers(name):
    return tf.TensorSpec([None], tf.int32, name)

  context = (floats(None, CONTEXT_SIZE, name='context'), integers('num_transitions'))
  latent = floats(LATENT_SIZE, name='z')
  specs = {
    'encode': context,
    'update': (
      *context,
      floats(LATENT_SIZE, name='eta'),
      floats(LATENT_SIZE, name='precision'),
      integers('prior_count'),
    ),
    'act': (floats(OBSERVATION_SIZE, name='observation'), latent),
    'add': (floats(1, name='left'), floats(1, name='right')),
    'multiply': (tf.TensorSpec(None, tf.float32, 'matrix'),),
    'strict': (floats(2, name='values'),),
    'total': (floats(1, name='values'),),
    'constant': (),
    'nothing': (floats(1, name='values'),),
    'slow': (floats(1, name='values'),),
  }
  traced = {
    name: tf.function(getattr(model, name)).get_concrete_function(*spec)
    for name, spec in specs.items()
  }
  return {'serving_default': traced['encode'], **traced}


def save(version_dir: pathlib.Path, *, factor: float = 1.0) -> pathlib.Path:
  """Writes a version, as a publisher should: beside its place, then renamed."""
  model = ToyModel(factor)
  return _publish(model, signatures(model), version_dir)


def save_tiny(version_dir: pathlib.Path) -> pathlib.Path:
  """Writes a version that only returns its `values`, `[B, 1] float32`."""

  @tf.function
  def same(values):
    return {'values': tf.identity(values)}

  return save_function(version_dir, same, tf.TensorSpec([None, 1], tf.float32, 'values'))


def save_function(
  version_dir: pathlib.Path, function: tf.types.experimental.GenericFunction, *specs: tf.TensorSpec
) -> pathlib.Path:
  """Writes a version whose `serving_default` is any function, such as one to be refused."""
  model = tf.Module()
  model.function = function
  return _publish(model, {'serving_default': function.get_concrete_function(*specs)}, version_dir)


def _publish(model: tf.Module, traced: dict, version_dir: pathlib.Path) -> pathlib.Path:
  version_dir = pathlib.Path(version_dir)
  staging = version_dir.with_name(f'.tmp-{version_dir.name}')
  tf.saved_model.save(model, str(staging), signatures=traced)
  staging.rename(version_dir)
  return version_dir
