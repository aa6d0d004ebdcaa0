"""A run of many processes: what dies is started again, and nothing is lost or doubled.

One group serves all of it, because starting its processes is what costs.
"""

import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
from absl.testing import absltest

from pearl_tf.experiment import builder as builder_lib
from pearl_tf.experiment import checkpoints, experiment, metrics, run_folder, trained
from pearl_tf.launch import group
from pearl_tf.testing import small_run, test_case

# How long a step of the test may take on a machine that has much else to do.
PATIENCE_SECONDS = 240
OUTAGE_SECONDS = 30
NAMESPACE, LINK = f'pearl-{os.getpid()}', f'pearl{os.getpid()}'
HOST, PEER = '10.231.77.1', '10.231.77.2'
BINDINGS = (
  *small_run.LINE,
  'PearlTraining.gradient_steps_per_iteration = 20',
  'Training.checkpoint_interval = 5',
  'Training.evaluation_interval = 10',
  'Training.export_interval = 10',
  'MetaTest.num_repeats = 1',
)


def command(program, *arguments):
  return [sys.executable, '-m', f'trainers.{program}', *arguments]


def start(arguments, log):
  environment = os.environ | {'PYTHONPATH': str(small_run.ROOT)}
  with log.open('ab') as output:
    return subprocess.Popen(
      arguments, cwd=small_run.ROOT, env=environment, stdout=output, stderr=output
    )


def children(process):
  """Returns the process ids of a group by the names of their roles."""
  found = {}
  path = pathlib.Path(f'/proc/{process.pid}/task/{process.pid}/children')
  for pid in path.read_text().split():
    try:
      line = pathlib.Path(f'/proc/{pid}/cmdline').read_text().split('\0')
    except FileNotFoundError:
      continue
    if '-m' in line:
      name = line[line.index('-m') + 1].removeprefix('trainers.')
      numbers = [part.partition('=')[2] for part in line if part.startswith('--actor=')]
      found['-'.join([name, *numbers])] = int(pid)
  return found


def has_namespaces():
  """Tells whether to cut an actor off, which takes root and half a minute: where asked for."""
  if 'PEARL_TF_OUTAGE' not in os.environ:
    return False
  is_root = os.geteuid() == 0 and shutil.which('ip') is not None
  return is_root and subprocess.run(['ip', 'netns', 'add', NAMESPACE], check=False).returncode == 0


class DistributedTest(test_case.TestCase):
  def setUp(self):
    super().setUp()
    self.folder = self.temp_dir()
    self.root = self.folder / 'run'
    self.log = self.folder / 'group.log'
    self.port = group.free_port()
    self.processes = []
    self.addCleanup(self.kill_all)

  def kill_all(self):
    for process in self.processes:
      process.kill()
      process.wait()

  def start_group(self, num_iterations):
    bindings = (*BINDINGS, f'Training.num_iterations = {num_iterations}')
    options = [f'--gin_bindings={binding}' for binding in bindings]
    options += [f'--root_dir={self.root}', f'--gin_file={small_run.GIN_FILE}']
    options += ['--num_actors=2', f'--port={self.port}']
    self.processes.append(start(command('train_distributed', *options), self.log))
    return self.processes[-1]

  def wait_for(self, what, condition):
    started = time.monotonic()
    while not (value := condition()):
      if time.monotonic() - started > PATIENCE_SECONDS:
        logs = [self.log, *sorted((self.root / 'logs').glob('*.log'))]
        said = [f'== {log.name}\n{log.read_text(errors="replace")[-2000:]}' for log in logs]
        self.fail(f'{what} did not happen:\n' + '\n'.join(said))
      time.sleep(0.1)
    return value

  def iteration(self):
    path = self.root / 'metrics.jsonl'
    records = metrics.read(path) if path.is_file() else []
    return records[-1]['iteration'] if records else 0

  def progress(self):
    newest = checkpoints.Checkpoints(self.root / 'checkpoints', prefix='latest').latest()
    return checkpoints.progress(newest)

  def newest_of(self, actor):
    return self.progress()['process'].get('newest', {}).get(str(actor), 0)

  def wait_for_more(self, what):
    """Waits until the run has done more than it had, and saved some of it."""
    before, saves = self.iteration(), self.progress()['num_saves']
    self.wait_for(f'more of the run {what}', lambda: self.iteration() > before + 1)
    self.wait_for(f'a checkpoint {what}', lambda: self.progress()['num_saves'] > saves)

  def kill(self, running, *names):
    """Kills processes and waits until there are others in their places."""
    former = children(running)
    for name in names:
      os.kill(former[name], signal.SIGKILL)

    def are_new():
      present = children(running)
      return all(present.get(name, former[name]) != former[name] for name in names)

    self.wait_for(f'another {names}', are_new)

  def start_actor_behind_a_link(self):
    """Starts a third actor in a network of its own; returns what cuts and mends its link."""
    self.addCleanup(subprocess.run, ['ip', 'netns', 'del', NAMESPACE], check=False)
    inside = ['netns', 'exec', NAMESPACE, 'ip']
    for arguments in (
      ['link', 'add', LINK, 'type', 'veth', 'peer', 'name', 'inner', 'netns', NAMESPACE],
      ['addr', 'add', f'{HOST}/24', 'dev', LINK],
      ['link', 'set', LINK, 'up'],
      [*inside, 'addr', 'add', f'{PEER}/24', 'dev', 'inner'],
      [*inside, 'link', 'set', 'inner', 'up'],
      [*inside, 'link', 'set', 'lo', 'up'],
    ):
      subprocess.run(['ip', *arguments], check=True)
    arguments = command('actor', f'--server={HOST}:{self.port}', '--actor=2')
    log = self.folder / 'actor-2.log'
    self.processes.append(start(['ip', 'netns', 'exec', NAMESPACE, *arguments], log))
    return lambda state: subprocess.run(['ip', 'link', 'set', LINK, state], check=True)

  def check_that_nothing_is_lost_or_doubled(self):
    """Compares the learner's cache with what the run says it has collected, by content."""
    folder = run_folder.RunFolder(self.root)
    builder = builder_lib.Builder(experiment.of_run(folder), folder)
    cache = builder.method.make_cache(builder.run)
    newest = checkpoints.Checkpoints(folder.checkpoints, prefix='latest').latest()
    checkpoints.restore(newest, {'cache': cache}, partial=True)
    rows = np.concatenate([cache.replay_rows(task).numpy() for task in range(4)])
    ledger = checkpoints.progress(newest)['process']
    self.assertEqual(len(rows), ledger['visited'] + sum(ledger['initial']))
    self.assertLen(np.unique(rows, axis=0), len(rows))
    for task in range(4):  # The initial pool, once: 40 steps a task.
      self.assertGreaterEqual(ledger['initial'][task], 40)

  def test_whatever_dies(self):
    running = self.start_group(10_000)
    is_linked = has_namespaces()
    if is_linked:
      link = self.start_actor_behind_a_link()
    self.wait_for('a first iteration', lambda: self.iteration() > 0)
    self.assertEqual(sum(self.progress()['process']['initial']), 160)
    if is_linked:
      self.wait_for('an episode of the third actor', lambda: self.newest_of(2))
      link('down')
      cut_at = time.monotonic()

    with self.subTest('an actor and the evaluator'):
      self.kill(running, 'actor-0', 'evaluator')
      self.wait_for_more('without an actor')
      newest = self.newest_of(0)
      self.wait_for('episodes of the new actor', lambda: self.newest_of(0) > newest)

    with self.subTest('the learner'):
      self.wait_for('an evaluation', lambda: (self.root / 'evaluator' / 'metrics.jsonl').is_file())
      before = self.progress()
      self.kill(running, 'learner')
      self.wait_for(
        'a new learner',
        lambda: self.progress()['process']['starts'] > before['process']['starts'],
      )
      after = self.progress()['process']
      self.assertGreaterEqual(after['visited'], before['process']['visited'])
      self.wait_for_more('with a new learner')

    if is_linked:
      with self.subTest('the network of the third actor'):
        time.sleep(max(0.0, OUTAGE_SECONDS - (time.monotonic() - cut_at)))
        newest = self.newest_of(2)
        link('up')
        self.wait_for('episodes after the outage', lambda: self.newest_of(2) > newest)
        self.assertIsNone(self.processes[-1].poll())  # Never started again.

    with self.subTest('the replay server'):
      self.kill(running, 'replay_server')
      learner_log = self.root / 'logs' / 'learner.log'
      said = r'filled the tables of a new replay server with \d+ trajectories'
      self.wait_for('a refill', lambda: re.search(said, learner_log.read_text()))
      self.wait_for_more('with a new server')

    with self.subTest('SIGTERM'):
      names = set(children(running))
      self.assertEqual(names, {'actor-0', 'actor-1', 'evaluator', 'learner', 'replay_server'})
      running.send_signal(signal.SIGTERM)
      self.assertEqual(running.wait(PATIENCE_SECONDS), 0, self.log.read_text())
      self.assertIn('everything is saved, the same command continues', self.log.read_text())
      self.check_that_nothing_is_lost_or_doubled()

    with self.subTest('the same command'):
      before = self.progress()
      last = before['iteration'] + 3
      self.assertEqual(self.start_group(last).wait(PATIENCE_SECONDS), 0, self.log.read_text())
      records = metrics.read(self.root)
      self.assertEqual([record['iteration'] for record in records], list(range(1, last + 1)))
      steps = [record['env_steps'] for record in records]
      self.assertEqual(steps, sorted(steps))
      self.assertGreaterEqual(self.progress()['env_steps'], before['env_steps'])
      self.check_that_nothing_is_lost_or_doubled()
      self.assertIn('test/final_return', records[-1])
      for name in ('learner/waiting_share', 'learner/update_to_data'):
        self.assertIn(name, records[-1])
      for name in ('actors/number', 'actors/staleness', 'actors/waiting_share'):
        self.assertTrue(any(name in record for record in records), name)
      self.assertGreater(trained.load(self.root, 'best').env_steps, 0)
      self.assertTrue(list((self.root / 'export').iterdir()))


if __name__ == '__main__':
  absltest.main()
