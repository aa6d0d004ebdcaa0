"""TF Serving's contract on versions: folders, hot reload, warm-up.

Sections 1.4 and 1.5 of its description. Runs against our server, or against any other: see
`tests.serving.support.contract_server`.
"""

import contextlib
import pathlib
import shutil
import threading
from collections.abc import Iterator

import grpc
import tensorflow as tf
from absl.testing import absltest, parameterized
from tensorflow_serving.apis import prediction_log_pb2

from pearl_tf.testing import test_case
from tests.serving.support import contract_cases, contract_server, toy_model

CODE = grpc.StatusCode
State = contract_server.State
WARMUP = pathlib.PurePath('assets.extra', 'tf_serving_warmup_requests')


class VersionsTestCase(test_case.TestCase):
  """Each test has a model of its own."""

  def serve(self, model: str) -> None:
    self.server = self.enter_context(contract_server.serving(model))

  def assert_fails(self, code: grpc.StatusCode, text: str, call, *args, **kwargs) -> None:
    with self.assertRaises(grpc.RpcError) as caught:
      call(*args, **kwargs)
    self.assertEqual(caught.exception.code(), code, caught.exception.details())
    self.assertRegex(caught.exception.details(), text)

  def wait_available(self, model: str, version: int) -> None:
    self.server.wait_for_state(model, version, State.AVAILABLE)

  def wait_gone(self, model: str, version: int) -> None:
    self.server.wait_for_state(model, version, State.END)


class FoldersTest(VersionsTestCase):
  def test_names_that_are_no_number_are_ignored(self):
    self.serve('named')
    for name in ('.tmp-9', 'abc', '8b', '1.5'):  # Stock takes -4 for a number.
      self.server.publish('named', name)
    self.server.publish('named', 5)
    self.wait_available('named', 5)
    self.assertLessEqual(set(self.server.states('named')), {1, 5})

  def test_names_of_the_same_number_are_one_version(self):
    self.serve('numbered')
    self.server.publish('numbered', '007')
    self.server.publish('numbered', '7')
    self.wait_available('numbered', 7)
    self.assertEqual(self.server.version_answering('numbered'), 7)
    self.assertEqual(set(self.server.states('numbered')), {1, 7})

  def test_all_folders_removed_unloads_the_model(self):
    self.serve('removed')
    shutil.rmtree(self.server.folder / 'removed' / '1')
    self.wait_gone('removed', 1)
    self.assert_fails(
      CODE.NOT_FOUND,
      r'^Servable not found for request: Latest\(removed\)$',
      self.server.version_answering,
      'removed',
    )
    self.server.publish('removed', 2)
    self.wait_available('removed', 2)


class HotReloadTest(VersionsTestCase):
  @contextlib.contextmanager
  def hammering(self, model: str) -> Iterator[list]:
    """Calls a model without a version all the time; gives the list of failures."""
    failures, calls, stop = [], [], threading.Event()

    def hammer():
      while not stop.is_set():
        try:
          calls.append(self.server.version_answering(model))
        except grpc.RpcError as error:
          failures.append(error)

    threads = [threading.Thread(target=hammer) for _ in range(2)]
    for thread in threads:
      thread.start()
    try:
      yield failures
    finally:
      stop.set()
      for thread in threads:
        thread.join()
    self.assertNotEmpty(calls)

  def test_unpinned_calls_never_fail_and_pinned_ones_end_with_their_version(self):
    self.serve('hot')
    with self.hammering('hot') as failures:
      self.server.publish('hot', 2)
      self.wait_available('hot', 2)
      self.assertEqual(self.server.version_answering('hot', 1), 1)
      self.server.publish('hot', 3)
      self.wait_available('hot', 3)
      self.wait_gone('hot', 1)
    self.assertEmpty(failures)
    self.assertEqual(self.server.version_answering('hot'), 3)
    self.assertEqual(self.server.version_answering('hot', 2), 2)
    self.assert_fails(
      CODE.NOT_FOUND, r'Specific\(hot, 1\)', self.server.version_answering, 'hot', 1
    )

  def test_broken_version_ends_and_the_one_before_goes_on(self):
    self.serve('broken')
    broken = self.server.publish('broken', '.tmp-2-broken')
    intact = (broken / 'saved_model.pb').read_bytes()
    (broken / 'saved_model.pb').write_bytes(intact[: len(intact) // 2])
    version_dir = broken.rename(self.server.folder / 'broken' / '2')
    status = self.server.wait_for_state('broken', 2, State.END).status
    self.assertNotEqual(status.error_code, 0)
    self.assertEqual(self.server.version_answering('broken'), 1)
    self.server.publish('broken', 3)
    self.wait_available('broken', 3)
    self.assertEqual(self.server.states('broken')[2].state, State.END)
    self.assertEqual((version_dir / 'saved_model.pb').stat().st_size, len(intact) // 2)


class RefusedGraphsTest(VersionsTestCase):
  """Graphs that stock loads and cannot run are refused by ours as it loads them."""

  @parameterized.named_parameters(
    ('compiled_by_xla', 2, True, CODE.INTERNAL, 'XLA'),
    ('running_python', 3, False, CODE.INVALID_ARGUMENT, 'PyFunc'),
  )
  def test_graph(self, version, is_compiled, code, text):
    self.serve('refused')

    def double(values):
      if is_compiled:
        return {'values': 2.0 * values}
      return {'values': tf.py_function(lambda x: 2.0 * x, [values], tf.float32)}

    toy_model.save_function(
      self.server.folder / 'refused' / str(version),
      tf.function(double, jit_compile=is_compiled),
      tf.TensorSpec([None, 1], tf.float32, 'values'),
    )
    found = self.server.wait_for_state('refused', version, State.END, State.AVAILABLE)
    if self.server.is_stock:
      self.assertEqual(found.state, State.AVAILABLE)
      self.assert_fails(code, text, self.server.version_answering, 'refused')
    else:
      self.assertEqual(found.state, State.END)
      self.assertRegex(found.status.error_message, text)
      self.assertEqual(self.server.version_answering('refused'), 1)


class WarmUpTest(VersionsTestCase):
  def publish(self, version: int, logs: list[prediction_log_pb2.PredictionLog]) -> None:
    folder = self.server.folder / 'warmed'
    staged = self.server.publish('warmed', f'.tmp-{version}-warm')
    (staged / WARMUP).parent.mkdir()
    with tf.io.TFRecordWriter(str(staged / WARMUP)) as writer:
      for log in logs:
        writer.write(log.SerializeToString())
    staged.rename(folder / str(version))

  def predict_log(self, signature: str = '') -> prediction_log_pb2.PredictionLog:
    log = prediction_log_pb2.PredictionLog()
    log.predict_log.request.CopyFrom(
      contract_cases.predict(signature, contract_cases.values(), model='warmed')
    )
    return log

  def session_log(self) -> prediction_log_pb2.PredictionLog:
    log = prediction_log_pb2.PredictionLog()
    log.session_run_log.SetInParent()
    return log

  def test_records_decide_whether_a_version_is_served(self):
    self.serve('warmed')
    self.publish(2, [self.predict_log()] * 3)
    self.wait_available('warmed', 2)
    bad = {
      3: ([self.predict_log(), self.predict_log('nosuch')], CODE.FAILED_PRECONDITION, 'not found'),
      4: ([self.session_log()], CODE.UNIMPLEMENTED, ''),
      5: ([self.predict_log()] * 1001, CODE.INVALID_ARGUMENT, '1000'),
    }
    for version, (logs, code, text) in bad.items():
      with self.subTest(version=version):
        self.publish(version, logs)
        status = self.server.wait_for_state('warmed', version, State.END).status
        self.assertEqual(status.error_code, code.value[0], status.error_message)
        self.assertIn(text, status.error_message)
        self.assertEqual(self.server.version_answering('warmed'), 2)


if __name__ == '__main__':
  absltest.main()
