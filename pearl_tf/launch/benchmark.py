"""Measures what it costs to collect in other processes, on this host.

The measuring process is the learner; replay server and actors are those of a real run. Reverb gives
a client in the server's own process a short cut, so the server is always another process.
"""

import dataclasses
import os
import pathlib
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import reverb

from pearl_tf.agents import builder as agents_builder
from pearl_tf.agents.pearl import remote_training
from pearl_tf.experiment import builder as builder_lib
from pearl_tf.experiment.benchmark import timing
from pearl_tf.launch import connection, group
from pearl_tf.replay import packing, tables, weights, writer

Record = dict[str, Any]

SERVER = 'server'
_DEADLINE_SECONDS = 300.0
# Far enough that no actor ever waits.
_ROUNDS_AHEAD = 64
# More than are measured; the cache has room for so many.
_NUM_ITERATIONS = 1000
_EPISODE_STEPS = 200
_EPISODES_PER_TURN = 400
_CHUNK_STEPS = 20


class _Processes:
  """A replay server and some actors, alive within a `with` block."""

  def __init__(self, roles: Sequence[group.Role], port: int):
    self.address = f'localhost:{port}'
    self._roles = roles
    self._is_over = threading.Event()
    self._error: group.GroupError | None = None

  def __enter__(self) -> '_Processes':
    self._logs = tempfile.TemporaryDirectory()
    self._group = group.Group(self._roles, pathlib.Path(self._logs.name), say=lambda line: None)
    self._thread = threading.Thread(target=self._run)
    self._thread.start()
    return self

  def server_cpu_seconds(self) -> float:
    """Returns the CPU time that the server has taken."""
    stat = pathlib.Path(f'/proc/{self._group.process_id(SERVER)}/stat').read_text()
    user, system = stat.rpartition(')')[2].split()[11:13]
    return (int(user) + int(system)) / os.sysconf('SC_CLK_TCK')

  def _run(self) -> None:
    try:
      self._group.run(is_stopping=self._is_over.is_set, tick=lambda: None)
    except group.GroupError as error:
      self._error = error

  def is_failed(self) -> bool:
    return self._error is not None

  def __exit__(self, *unused_exception) -> None:
    self._is_over.set()
    self._thread.join()
    self._logs.cleanup()
    if self._error is not None:
      raise self._error


def run(
  builder: builder_lib.Builder,
  make_roles: Callable[[int, int], Sequence[group.Role]],
  *,
  actors: Sequence[int],
  seconds: float,
  announce: Callable[[str], None],
) -> list[Record]:
  """Measures all of it.

  Args:
    builder: the experiment.
    make_roles: returns the processes of a replay server at a port, the first argument, and of as
      many actors as the second.
    actors: numbers of actors to measure with.
    seconds: how long each part takes, about.
    announce: told what is measured next.

  Returns:
    One record a part, each with a `part`.
  """
  records = [{'part': 'machine', 'cores': os.cpu_count(), 'load_average': os.getloadavg()[0]}]
  announce('insertion, delivery, publication, and the learner alone and fed')
  port = group.free_port()
  with _Processes(make_roles(port, 0), port) as processes:
    process = _make_learner(builder, processes)
    records += _replay(
      builder, process, processes.address, seconds, server_cpu_seconds=processes.server_cpu_seconds
    )
  for number in actors:
    announce(f'{number} actors')
    port = group.free_port()
    with _Processes(make_roles(port, number), port) as processes:
      process = _make_learner(builder, processes)
      iteration, record = _collection(process, number, seconds)
      records += [record, _training(process, number, iteration, seconds)]
  return records


def _make_learner(
  builder: builder_lib.Builder, processes: _Processes
) -> remote_training.RemoteTraining:
  connection.wait_for_server(processes.address, _DEADLINE_SECONDS)
  connection.check(processes.address, builder, _DEADLINE_SECONDS)
  link = agents_builder.Link(processes.address, processes.is_failed, _DEADLINE_SECONDS)
  run = builder.run._replace(
    training=dataclasses.replace(builder.training, num_iterations=_NUM_ITERATIONS)
  )
  process = builder.method.make_remote_process(builder.agent, run, link)
  process.settings = dataclasses.replace(process.settings, rounds_ahead=_ROUNDS_AHEAD)
  return process


def _collection(
  process: remote_training.RemoteTraining, num_actors: int, seconds: float
) -> tuple[int, Record]:
  """Counts the transitions that reach the learner's cache; returns the last iteration, too."""
  process.recover()
  process.prepare()
  iteration, senders = 0, 0.0
  # Until all have started and compiled.
  while senders < num_actors or iteration < 2 * num_actors:
    senders = process.collect(iteration).values.get('actors/number', 0.0)
    iteration += 1
  started, env_steps, waiting = time.monotonic(), 0, []
  while time.monotonic() - started < seconds or len(waiting) < num_actors:
    collected = process.collect(iteration)
    env_steps += collected.env_steps
    if 'actors/waiting_share' in collected.values:
      waiting.append(collected.values['actors/waiting_share'])
    iteration += 1
  rate = env_steps / (time.monotonic() - started)
  return iteration - 1, {
    'part': 'collection',
    'actors': num_actors,
    'env_steps_per_second': rate,
    'env_steps_per_second_per_actor': rate / num_actors,
    'actors_waiting_share': float(np.mean(waiting)),
  }


def _training(
  process: remote_training.RemoteTraining, num_actors: int, iteration: int, seconds: float
) -> Record:
  """Trains while actors collect, none waiting for the other, and asks how old their policy was.

  The policy is published after every call, so that what is measured is the way to an actor, an
  episode, and the way back; `RemoteCollection` adds what its settings say.
  """
  process.settings = dataclasses.replace(process.settings, publish_interval=_CHUNK_STEPS)
  process.train(_CHUNK_STEPS)  # Compiles, and publishes.
  process.collect(iteration)
  started, num_steps, staleness = time.monotonic(), 0, []
  while time.monotonic() - started < seconds or not staleness:
    process.train(_CHUNK_STEPS)
    num_steps += _CHUNK_STEPS
    values = process.collect(iteration).values  # Its transitions are there: tells what came.
    staleness += [values[name] for name in values if name == 'actors/staleness']
  rate = num_steps / (time.monotonic() - started)
  return {
    'part': 'training',
    'actors': num_actors,
    'steps_per_second': rate,
    'staleness_steps': float(np.mean(staleness)),
    'staleness_seconds': float(np.mean(staleness)) / rate,
  }


def _replay(
  builder: builder_lib.Builder,
  process: remote_training.RemoteTraining,
  address: str,
  seconds: float,
  *,
  server_cpu_seconds: Callable[[], float],
) -> list[Record]:
  """Writes noise into the replay and takes it, then trains alone and with its share of taking."""
  layout = packing.PackedLayout(*builder.domain)
  num_tasks = len(builder.tasks.train)
  random = np.random.default_rng(builder.seed)
  rows = random.standard_normal([_EPISODE_STEPS, layout.width], np.float32)
  writing = writer.ReplayWriter(
    reverb.Client(address), layout, max_pending_episodes=16, number=1, to_unsaved=True
  )
  count = 0

  def write(num_episodes: int) -> int:
    nonlocal count
    for _ in range(num_episodes):
      # Each has a context, so that there is something to train on.
      writing.write_rows(count % num_tasks, rows, in_context=True, visit=count, phase=1)
      count += 1
    writing.flush()
    return num_episodes * _EPISODE_STEPS

  def timed(function: Callable[..., Any], *arguments) -> float:
    started = time.perf_counter()
    function(*arguments)
    return time.perf_counter() - started

  write(num_tasks)
  process.state()
  per_turn, inserted, delivered = _EPISODES_PER_TURN * _EPISODE_STEPS, [], []
  cpu = {'writer': 0.0, 'learner': 0.0}
  server_before, started = server_cpu_seconds(), time.monotonic()
  while time.monotonic() - started < seconds or len(inserted) < 3:
    times = [time.process_time()]
    inserted.append(timed(write, _EPISODES_PER_TURN) / per_turn)
    times.append(time.process_time())
    delivered.append(timed(process.state) / per_turn)
    times.append(time.process_time())
    cpu['writer'] += times[1] - times[0]
    cpu['learner'] += times[2] - times[1]
  cpu['server'] = server_cpu_seconds() - server_before
  num_transitions = per_turn * len(inserted)

  settings, schedule = builder.method.training, builder.method.schedule
  per_step = (
    schedule.tasks_per_iteration * schedule.visit_steps / settings.gradient_steps_per_iteration
  )
  episodes = max(1, round(_CHUNK_STEPS * per_step / _EPISODE_STEPS))
  alone, fed = timing.Turns([], []), timing.Turns([], [])
  process.train(_CHUNK_STEPS)
  started = time.monotonic()
  while time.monotonic() - started < seconds or alone.number < 3:
    write(episodes)  # By others, in a real run.
    fed.add(seconds=timed(process.train, _CHUNK_STEPS), work=_CHUNK_STEPS)
    alone.add(seconds=timed(process.learner.run, _CHUNK_STEPS), work=_CHUNK_STEPS)

  channel = builder.method.make_weights(builder.agent, address)
  publish = [timed(channel.publish, weights.Age(0)) for _ in range(10)]
  fetch = [timed(channel.fetch, 10.0) for _ in range(10)]
  versions = weights.Weights(address, tables.AGENT, builder.agent.variables)
  whole = [timed(versions.publish, weights.Age(0)) for _ in range(10)]
  return [
    {
      'part': 'replay',
      'row_bytes': 4 * layout.width,
      'inserted_per_second': float(1 / np.median(inserted)),
      'delivered_per_second': float(1 / np.median(delivered)),
      'one_after_the_other_per_second': float(1 / np.median(np.add(inserted, delivered))),
      # Of all threads; what others do on the machine changes it little.
      **{f'{who}_cpu_microseconds': 1e6 * spent / num_transitions for who, spent in cpu.items()},
    },
    {
      'part': 'learner',
      'steps_per_second_alone': alone.median_rate(),
      'steps_per_second_fed': fed.median_rate(),
      'feeding_costs_percent': timing.extra_percent(fed, alone),
      'transitions_per_step': episodes * _EPISODE_STEPS / _CHUNK_STEPS,
    },
    {
      'part': 'weights',
      'policy_bytes': _num_bytes(
        [*builder.agent.actor.variables, *builder.agent.encoder.variables]
      ),
      'policy_publish_seconds': float(np.median(publish)),
      'policy_fetch_seconds': float(np.median(fetch)),
      'agent_bytes': _num_bytes(builder.agent.variables),
      'agent_publish_seconds': float(np.median(whole)),
    },
  ]


def _num_bytes(variables: Sequence[Any]) -> int:
  return sum(int(np.prod(v.shape)) * v.dtype.size for v in variables)


def lines(records: Sequence[Mapping[str, Any]]) -> list[str]:
  """Returns the records as lines for people."""
  formatted = []
  for record in records:
    values = {name: value for name, value in record.items() if name != 'part'}
    parts = [f'{name} {value:,.4g}' for name, value in values.items()]
    formatted.append(f'{record["part"]:<11} {", ".join(parts)}')
  return formatted
