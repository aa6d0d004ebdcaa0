import asyncio
import contextlib
import json
import os
from unittest import mock

import numpy as np
from absl import app
from absl.testing import absltest, parameterized

from pearl_tf.testing import exported_model, test_case
from serving import benchmark
from serving.server import process, server
from tests.serving.support import in_process


def turn(seconds, *latencies):
  return benchmark.Turn(seconds, np.array(latencies))


class Calls:
  """Clients that only note whose turn it is."""

  def __init__(self, name, told):
    self._name = name
    self._told = told

  async def call(self, request, number, seconds):
    self._told.append((self._name, request, number, seconds))
    return turn(seconds, 0.1)


class TurnsTest(test_case.TestCase):
  def test_order_is_reversed_every_other_round_and_the_first_does_not_count(self):
    told = []
    servers = {name: Calls(name, told) for name in 'ab'}
    found = asyncio.run(benchmark.take_turns(servers, b'x', 8, seconds=2.0, turns=3))
    self.assertEqual([call[0] for call in told], list('abbaabba'))
    self.assertEqual({call[1:] for call in told}, {(b'x', 8, 2.0)})
    self.assertEqual({name: len(turns) for name, turns in found.items()}, {'a': 3, 'b': 3})

  def test_figures(self):
    found = {
      'here': [turn(1.0, 0.1, 0.2, 0.6), turn(2.0, 0.4, 0.4), turn(1.0, 0.5)],
      'other': [turn(1.0, 0.4), turn(4.0, 0.8), turn(1.0, 0.5)],
    }
    record = benchmark.record('act', 8, 'here', found['here'], found)
    # By round 3, 4 and 1.
    self.assertEqual(record['of_other'], 3.0)
    self.assertEqual((record['calls_per_second'], record['p50_ms']), (1, 400.0))
    self.assertNotIn('of_here', benchmark.record('act', 8, 'other', found['other'], found))


class ProgramTest(test_case.TestCase):
  def run_main(self, *arguments, **values):
    values = {'clients': ['1', '3'], 'seconds': 0.01, 'turns': 1, 'servers': []} | values
    return in_process.run_main(benchmark, *arguments, **values)

  def test_every_call_is_measured(self):
    export = exported_model.export_small(self.temp_dir())

    @contextlib.contextmanager
    def running(settings):  # In this process, which has TensorFlow already.
      with server.in_background(settings) as started:
        yield mock.Mock(address=started.address, process=mock.Mock(pid=os.getpid()))

    with mock.patch.object(process, 'running', running):
      printed = self.run_main(export_dir=str(export))
    life, *records = [json.loads(line) for line in printed.splitlines() if line.startswith('{')]
    self.assertGreater(life['ready_after_seconds'], 0)
    self.assertBetween(life['mib_at_first'], 50, 5000)
    self.assertEqual(
      [(record['call'], record['clients']) for record in records],
      [(call, n) for call in ('act', 'update T=64', 'update T=200') for n in (1, 3)],
    )
    self.assertTrue(all(record['calls_per_second'] > 0 for record in records))
    self.assertIn('calls per second', printed)

  @parameterized.parameters(
    ({'arguments': ('more',)},),
    ({'clients': ['1', 'x']},),
    ({'servers': ['localhost:1']},),
    ({'servers': ['here=localhost:1']},),
  )
  def test_mistakes_are_explained(self, values):
    with self.assertRaises(app.UsageError):
      self.run_main(*values.pop('arguments', ()), **values)


if __name__ == '__main__':
  absltest.main()
