import contextlib
import json
import operator
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile

import numpy as np
from absl.testing import absltest, parameterized

from pearl_tf.testing import exported_model, test_case
from serving.benchmarking import (
  echo_server,
  helper_process,
  load_generator,
  model_folder,
  process_usage,
  report,
  targets,
  turns,
  untrained_agent,
)

ROOT = pathlib.Path(__file__).resolve().parents[2]
NUM_WORKLOADS = 6


def run_program(*arguments: str) -> subprocess.CompletedProcess:
  return subprocess.run(
    [sys.executable, '-m', 'serving.benchmark', *arguments],
    cwd=ROOT,
    capture_output=True,
    text=True,
    timeout=280,
    check=False,
  )


def sample(seconds: float, *latencies: float) -> turns.Sample:
  return turns.Sample(seconds, np.array(latencies), cpu_seconds=0.0)


class TurnsTest(test_case.TestCase):
  def test_order_is_reversed_every_other_round(self):
    told = []

    def contender(name):
      def run(seconds):
        told.append((name, seconds))
        return sample(seconds, 0.1)

      return run

    samples = turns.take_turns({name: contender(name) for name in 'ab'}, seconds=6.0, num_rounds=3)
    self.assertEqual([name for name, _ in told], list('ababbaab'))
    self.assertEqual({seconds for _, seconds in told}, {2.0})
    self.assertEqual({name: len(found) for name, found in samples.items()}, {'a': 3, 'b': 3})

  def test_figures(self):
    fast = [sample(1.0, 0.1, 0.2, 0.6), sample(2.0, 0.4, 0.4), sample(1.0, 0.5)]
    slow = [sample(1.0, 0.4), sample(4.0, 0.8), sample(1.0, 0.5)]
    self.assertAlmostEqual(turns.median(fast, lambda turn: turn.rate), 1.0)
    self.assertAlmostEqual(turns.median(fast, lambda turn: turn.median_latency), 0.4)
    # By round 3, 4 and 1.
    self.assertAlmostEqual(turns.ratio(fast, slow, lambda turn: turn.rate), 3.0)
    self.assertAlmostEqual(turns.quantile(fast, 1.0), 0.6)
    self.assertAlmostEqual(turns.quantile(fast, 0.5), 0.4)

  @parameterized.parameters((0.0, 1), (1.0, 0))
  def test_nothing_to_do_is_refused(self, seconds, num_rounds):
    with self.assertRaisesRegex(ValueError, f'got {seconds} and {num_rounds}'):
      turns.take_turns({}, seconds=seconds, num_rounds=num_rounds)


class ProcessesTest(test_case.TestCase):
  def test_clients_call_the_echo_server(self):
    with echo_server.running() as server, load_generator.running() as generator:
      self.assertNotEqual(server.pid, os.getpid())
      for num_clients in (3, 1):
        load = load_generator.Load(server.address, server.pid, b'x' * 1000, num_clients)
        turn = generator.run(load, 0.1)
        self.assertGreaterEqual(turn.seconds, 0.1)
        self.assertGreaterEqual(len(turn.latencies), num_clients)
        self.assertGreater(np.min(turn.latencies), 0)
        # A client that waits for its answer has one call at a time.
        self.assertLessEqual(np.sum(turn.latencies), num_clients * turn.seconds * 1.01)
        self.assertGreaterEqual(turn.cpu_seconds, 0)
      before = process_usage.cpu_seconds(server.pid)
      generator.run(load, 0.5)
      self.assertGreater(process_usage.cpu_seconds(server.pid), before)
      self.assertBetween(process_usage.resident_mib(server.pid), 5, 500)

  def test_failed_call_is_told(self):
    with load_generator.running() as generator, contextlib.ExitStack() as stack:
      server = stack.enter_context(echo_server.running())
      too_large = b'x' * (17 * 2**20)
      load = load_generator.Load(server.address, server.pid, too_large, 1)
      with self.assertRaisesRegex(helper_process.HelperError, 'RESOURCE_EXHAUSTED'):
        generator.run(load, 0.1)
      self.assertNotEmpty(generator.run(load._replace(request=b'x'), 0.01).latencies)

  # What runs there must be found without this module, whose imports take seconds.
  @parameterized.parameters(
    (operator.methodcaller('send', helper_process.HelperError('out of order')), 'out of order'),
    (repr, 'ended'),
  )
  def test_helper_that_cannot_help(self, work, text):
    with (
      helper_process.running(work, 'helper') as pipe,
      self.assertRaisesRegex(helper_process.HelperError, text),
    ):
      helper_process.receive(pipe)


class ModelFolderTest(test_case.TestCase):
  def test_versions_are_copies(self):
    export = self.temp_dir()
    version_dir = export / 'pearl' / '7'
    version_dir.mkdir(parents=True)
    (version_dir / 'saved_model.pb').write_text('graph')
    folder = model_folder.ModelFolder(export, self.temp_dir() / 'served')
    shutil.rmtree(export)
    self.assertEqual(folder.publish_again(), 8)
    self.assertEqual(folder.publish_again(), 9)
    found = sorted(path.relative_to(folder.base_path) for path in folder.base_path.rglob('*.pb'))
    self.assertEqual([str(path) for path in found], [f'{n}/saved_model.pb' for n in (7, 8, 9)])

  def test_export_without_a_version(self):
    with self.assertRaisesRegex(ValueError, 'name one that serving.export wrote'):
      model_folder.ModelFolder(self.temp_dir(), self.temp_dir())


class UntrainedAgentTest(test_case.TestCase):
  def test_sizes_of_the_published_experiments(self):
    export = untrained_agent.export(self.temp_dir())
    manifest = json.loads(
      (export / 'pearl' / '1' / 'assets.extra' / 'pearl_manifest.json').read_text()
    )
    sizes = [manifest[f'{name}_size'] for name in ('observation', 'action', 'latent')]
    self.assertEqual(sizes, [20, 6, 5])
    size = (export / 'pearl' / '1' / 'variables' / 'variables.data-00000-of-00001').stat().st_size
    encoder = 28 * 200 + 2 * 201 * 200 + 201 * 10
    policy = 26 * 300 + 2 * 301 * 300 + 301 * 12
    self.assertAlmostEqual(size / (4 * (encoder + policy)), 1, delta=0.02)


class TargetsTest(test_case.TestCase):
  @parameterized.parameters(
    (1.2, 9.0, [True, True]), (2.0, 2.9, [True, True]), (2.0, 3.1, [False, False])
  )
  def test_latency_of_one_client_has_two_ways(self, p50_ms, p50_to_echo, met):
    cell = {'workload': 'act', 'clients': 1}
    records = [
      {'part': 'calls', 'contender': 'echo', 'p50_ms': 0.1, **cell},
      {'part': 'calls', 'contender': 'served', 'p50_ms': p50_ms, **cell},
      {'part': 'ratios', 'p50_to_echo': p50_to_echo, **cell},
    ]
    judged = targets.judge(records)
    self.assertEqual([record['met'] for record in judged], met)
    self.assertEqual([record['value'] for record in judged], [p50_ms, p50_to_echo])

  @parameterized.parameters(
    (0.46, 2.9, 1.4, [True, False, True]), (0.44, 3, 1.6, [False, True, False])
  )
  def test_ratios(self, to_echo, to_unbatched, to_bare, met):
    records = [
      {
        'part': 'ratios',
        'workload': 'act',
        'clients': 32,
        'rate_to_echo': to_echo,
        'rate_to_unbatched': to_unbatched,
      },
      {'part': 'ratios', 'workload': 'update T=200', 'clients': 1, 'p50_to_bare': to_bare},
    ]
    self.assertEqual([record['met'] for record in targets.judge(records)], met)

  def test_what_was_not_measured_is_not_judged(self):
    self.assertEqual(targets.judge([{'part': 'machine'}]), [])


class ProgramTest(test_case.TestCase):
  @classmethod
  def setUpClass(cls):
    super().setUpClass()
    cls.folder = pathlib.Path(cls.enterClassContext(tempfile.TemporaryDirectory()))
    exported_model.export_small(cls.folder / 'export')
    cls.output = cls.folder / 'figures' / 'lines.jsonl'
    cls.result = run_program(
      f'--export_dir={cls.folder / "export"}',
      '--seconds=0.06',
      '--clients=1,3',
      f'--output={cls.output}',
    )

  def records(self, part):
    self.assertEqual(self.result.returncode, 0, self.result.stderr)
    records = [json.loads(line) for line in self.output.read_text().splitlines()]
    return [record for record in records if record['part'] == part]

  def test_every_cell_has_its_contenders(self):
    calls = self.records('calls')
    contenders = {}
    for record in calls:
      cell = contenders.setdefault((record['workload'], record['clients']), [])
      cell.append(record['contender'])
      self.assertGreater(record['calls_per_second'], 0)
      self.assertGreaterEqual(record['p99_ms'], 0)
      self.assertGreaterEqual(record['calls'], record['rounds'])
    self.assertLen(contenders, 2 * NUM_WORKLOADS)
    for clients in (1, 3):
      self.assertEqual(contenders.pop(('act', clients)), ['served', 'unbatched', 'echo', 'bare'])
    self.assertEqual({tuple(names) for names in contenders.values()}, {('served', 'echo', 'bare')})
    lengths = {record['transitions'] for record in calls if record['signature'] == 'update'}
    self.assertEqual(lengths, {1, 64, 200, 1000})

  def test_ratios_and_targets(self):
    self.assertLen(self.records('ratios'), 2 * NUM_WORKLOADS)
    judged = [(record['workload'], record['figure']) for record in self.records('target')]
    # Those of 32 clients were not measured.
    self.assertEqual(
      judged, [('update T=200', 'p50_to_bare'), ('act', 'p50_ms'), ('act', 'p50_to_echo')]
    )

  def test_life_of_the_server(self):
    (start,), (reload,) = self.records('start_up'), self.records('hot_reload')
    self.assertGreater(start['seconds'], 0.1)
    self.assertEqual(reload['reloads'], 3)
    self.assertGreater(reload['seconds_max'], 0)
    (memory,) = self.records('memory_mib')
    for name in ('after_start', 'after_load', 'after_reloads'):
      self.assertBetween(memory[name], 50, 5000)

  def test_tables(self):
    self.assertEqual(self.result.returncode, 0, self.result.stderr)
    for text in ('update T=200', 'adapt_and_act T=200', 'Targets', 'hot reload', 'resident memory'):
      self.assertIn(text, self.result.stdout)
    self.assertNotIn('…', self.result.stdout)
    self.assertIn(f'written to {self.output}', self.result.stdout)
    self.assertIn('act, clients: 3', self.result.stderr)

  def test_export_is_left_as_it_was(self):
    self.assertEqual([path.name for path in (self.folder / 'export' / 'pearl').iterdir()], ['1'])

  def test_lines_are_the_records(self):
    records = [{'part': 'a', 'value': 1.5}, {'part': 'b'}]
    lines = report.json_lines(records).splitlines()
    self.assertEqual([json.loads(line) for line in lines], records)

  @parameterized.parameters(
    (['more'], 2, "unexpected arguments ['more']"),
    (['--clients=1,x'], 2, "--clients must be positive numbers like 1,8,32, got '1,x'"),
    (['--seconds=0'], 2, 'seconds'),
    (['--export_dir=/nowhere'], 1, 'error: /nowhere/pearl is no folder'),
  )
  def test_mistakes_are_explained(self, arguments, code, text):
    result = run_program(*arguments)
    self.assertEqual(result.returncode, code, result.stderr)
    self.assertIn(text, result.stderr)
    self.assertNotIn('Traceback', result.stderr)

  def test_help_shows_an_example_and_the_flags(self):
    result = run_program('--help')
    self.assertEqual(result.returncode, 0)
    self.assertIn('python -m serving.benchmark --export_dir=', result.stdout)
    for name in ('export_dir', 'seconds', 'clients', 'output'):
      self.assertIn(f'--{name}', result.stdout)


if __name__ == '__main__':
  absltest.main()
