import reverb
import tensorflow as tf
from absl.testing import absltest, parameterized
from tensorflow.core.protobuf import saved_model_pb2

from pearl_tf.testing import test_case
from serving import judge

ROW = tf.TensorSpec([None, 2], tf.float32, 'x')


class Module(tf.Module):
  """A served function of rows, with what a faulty one may want to reach."""

  def __init__(self):
    super().__init__()
    self.variable = tf.Variable([1.0, 2.0])
    self.count = tf.Variable(0)
    self.generator = tf.random.Generator.from_seed(1)


@tf.function(jit_compile=True)
def compiled(x):
  return x * 2.0


def times_two(x):
  return x * 2.0


def count(module, x):
  module.count.assign_add(1)
  return x + tf.cast(module.count, tf.float32)


def while_with_python(module, x):
  del module

  def body(step, value):
    value = tf.numpy_function(times_two, [value], tf.float32)
    return step + 1, tf.ensure_shape(value, [None, 2])

  return tf.while_loop(lambda step, _: step < 2, body, (0, x))[1]


def reverb_sample(module, x):
  del module
  client = reverb.TFClient('localhost:1')
  return x + tf.cast(client.sample('table', [tf.float32]).info.table_size, tf.float32)


def log_and_read(module, x):
  del module
  text = tf.io.read_file('/etc/hostname')
  return x + tf.cast(tf.strings.length(text), tf.float32)


def write(module, x):
  del module
  with tf.control_dependencies([tf.io.write_file('/nowhere/at/all', 'text')]):
    return tf.identity(x)


def restore(module, x):
  del module
  return (
    x
    + tf.raw_ops.RestoreV2(
      prefix='/nowhere', tensor_names=['x'], shape_and_slices=[''], dtypes=[tf.float32]
    )[0]
  )


# (name, what a row goes through, words that the problem must have)
FAULTY_OPS = (
  ('py_function', lambda _, x: tf.py_function(times_two, [x], tf.float32), "'EagerPyFunc'.*Python"),
  (
    'numpy_function',
    lambda _, x: tf.numpy_function(times_two, [x], tf.float32),
    "'PyFunc'.*Python",
  ),
  ('py_function_in_a_loop', while_with_python, "'PyFunc'.*of function.*serving_default.*Python"),
  ('jit_compile', lambda _, x: compiled(x), 'compiled.*jit_compile=True'),
  ('normal', lambda _, x: x + tf.random.normal([2]), "'RandomStandardNormal'.*stateless"),
  ('uniform', lambda _, x: x + tf.random.uniform([2]), "'RandomUniform'.*stateless"),
  ('generator', lambda m, x: x + m.generator.normal([2]), "'RngReadAndSkip'.*stateless"),
  ('read_file', log_and_read, "'ReadFile'.*files"),
  ('write_file', write, "'WriteFile'.*files"),
  ('restore', restore, "'RestoreV2'.*client.*files"),
  ('print_to_anywhere', lambda _, x: (tf.print(x), x)[1], "'PrintV2'.*files"),
  ('reverb', reverb_sample, "'ReverbClient.*no op of TensorFlow"),
  ('counter', count, "'AssignAddVariableOp'.*keeps state"),
)


class JudgeTest(test_case.TestCase):
  def save(self, function, *, signatures=None):
    """Saves a module with `function(module, x)`; returns the folder."""
    module = Module()
    module.call = tf.function(
      lambda x: {'y': tf.ensure_shape(function(module, x), [None, 2])}, input_signature=[ROW]
    )
    folder = self.temp_dir() / '1'
    signatures = signatures(module) if signatures else {'serving_default': module.call}
    tf.saved_model.save(module, str(folder), signatures=signatures)
    return folder

  def edit(self, folder, change):
    """Rewrites `saved_model.pb` after `change(meta_graph)`."""
    model = saved_model_pb2.SavedModel.FromString((folder / 'saved_model.pb').read_bytes())
    change(model.meta_graphs[0])
    (folder / 'saved_model.pb').write_bytes(model.SerializeToString())

  def assert_problem(self, folder, pattern):
    found = judge.problems(folder)
    self.assertNotEmpty(found)
    for line in found:
      self.assertRegex(line, pattern)

  def test_good_model_has_no_problem(self):
    def stateless(module, x):
      seeds = tf.zeros([tf.shape(x)[0], 2], tf.int32)
      noise = tf.map_fn(
        lambda seed: tf.random.stateless_normal([2], seed, alg='philox'),
        seeds,
        fn_output_signature=tf.float32,
      )
      return tf.ensure_shape(x, [None, 2]) * module.variable + noise

    self.assertEqual(judge.problems(self.save(stateless)), [])

  @parameterized.named_parameters(*FAULTY_OPS)
  def test_op_is_refused(self, function, pattern):
    self.assert_problem(self.save(function), pattern)

  def test_jit_compile_on_the_signature_itself_is_refused(self):
    def signatures(module):
      function = tf.function(
        lambda x: {'y': x + module.variable}, input_signature=[ROW], jit_compile=True
      )
      return {'serving_default': function}

    self.assert_problem(self.save(times_two_of, signatures=signatures), 'jit_compile=True')

  def test_jit_compile_false_is_fine(self):
    def signatures(module):
      function = tf.function(
        lambda x: {'y': x + module.variable}, input_signature=[ROW], jit_compile=False
      )
      return {'serving_default': function}

    self.assertEqual(judge.problems(self.save(times_two_of, signatures=signatures)), [])

  def test_function_that_no_signature_calls_is_judged(self):
    def signatures(module):
      module.other = tf.function(lambda x: tf.py_function(times_two, [x], tf.float32), [ROW])
      return {'serving_default': module.call}

    self.assert_problem(self.save(times_two_of, signatures=signatures), 'called by no signature')

  def test_state_that_no_signature_changes_is_fine(self):
    def signatures(module):
      module.step = tf.function(lambda: module.count.assign_add(1), input_signature=[])
      return {'serving_default': module.call}

    self.assertEqual(judge.problems(self.save(times_two_of, signatures=signatures)), [])

  def test_missing_serving_default(self):
    folder = self.save(times_two_of, signatures=lambda module: {'act': module.call})
    self.assert_problem(folder, r"no signature 'serving_default' \(there are: act\)")

  @parameterized.named_parameters(
    ('slash_in_output', [ROW], lambda x: {'state/z': x}, "output 'state/z'.*slash"),
    ('no_output', [ROW], lambda x: {}, 'has no output'),
    ('no_input', [], lambda: {'y': tf.zeros([2])}, 'has no input|dimension 0 is 2'),
    (
      'scalar_input',
      [ROW, tf.TensorSpec([], tf.bool, 'deterministic')],
      lambda x, deterministic: {'y': tf.where(deterministic, x, 0.0)},
      "input 'deterministic'.*scalar",
    ),
    ('scalar_output', [ROW], lambda x: {'y': tf.reduce_sum(x)}, "output 'y'.*scalar"),
    (
      'fixed_batch',
      [tf.TensorSpec([1, 2], tf.float32, 'x')],
      lambda x: {'y': x},
      "'[xy]': dimension 0 is 1",
    ),
    (
      'unknown_rank',
      [tf.TensorSpec(None, tf.float32, 'x')],
      lambda x: {'y': x},
      "'[xy]': its rank is unknown",
    ),
  )
  def test_signature_is_refused(self, input_signature, function, pattern):
    def signatures(module):
      called = tf.function(function, input_signature=input_signature)
      return {'serving_default': module.call, 'bad': called}

    folder = self.save(times_two_of, signatures=signatures)
    self.assert_problem(folder, f"signature 'bad'.*({pattern})")

  def test_slash_in_input_is_refused(self):
    folder = self.save(times_two_of)

    def rename(meta_graph):
      inputs = meta_graph.signature_def['serving_default'].inputs
      inputs['0/observation'].CopyFrom(inputs.pop('x'))

    self.edit(folder, rename)
    self.assert_problem(folder, "input '0/observation'.*slash")

  def test_tensor_that_is_not_there_is_refused(self):
    folder = self.save(times_two_of)

    def misname(meta_graph):
      meta_graph.signature_def['serving_default'].inputs['x'].name = 'elsewhere:0'

    self.edit(folder, misname)
    self.assert_problem(folder, "'elsewhere:0' is not in the graph")

  def test_other_tag_is_refused(self):
    folder = self.save(times_two_of)
    self.edit(folder, lambda meta_graph: meta_graph.meta_info_def.tags.append('tpu'))
    self.assert_problem(folder, "no graph with the one tag 'serve'")

  def test_truncated_and_missing_files_are_problems(self):
    folder = self.save(times_two_of)
    data = (folder / 'saved_model.pb').read_bytes()
    (folder / 'saved_model.pb').write_bytes(data[: len(data) // 2])
    self.assert_problem(folder, 'truncated')
    self.assert_problem(folder / 'nowhere', 'cannot read')


def times_two_of(module, x):
  return x * 2.0 + module.variable


if __name__ == '__main__':
  absltest.main()
