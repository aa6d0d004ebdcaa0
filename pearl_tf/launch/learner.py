"""The process that learns: the loop of a run, whose data come from actors."""

import os
from collections.abc import Mapping

import tensorflow as tf

from pearl_tf.agents import builder as agents_builder
from pearl_tf.experiment import experiment as experiment_lib
from pearl_tf.experiment import local_loop, loop
from pearl_tf.launch import connection, start
from pearl_tf.replay import tables, weights


def learn(
  experiment: experiment_lib.Experiment,
  root_dir: str | os.PathLike,
  server_address: str,
  *,
  deadline_seconds: float,
  strategy: tf.distribute.Strategy | None = None,
) -> bool:
  """Trains into a run folder, from the start or from its last checkpoint.

  Args:
    experiment: what the run is.
    root_dir: the run folder.
    server_address: `host:port` of the replay server.
    deadline_seconds: how long to wait for server and actors.
    strategy: the devices that share a training step; one device by default.

  Returns:
    True at the end of the run, False if a signal asked to stop.

  Raises:
    DisagreementError: if the server is of another run.
    TimeoutError: if server or actors do not show up in time.
    Exception: what `local_loop.train` raises.
  """
  builder = start.build(experiment, strategy=strategy)
  connection.wait_for_server(server_address, deadline_seconds)
  with (
    local_loop.claimed(builder, root_dir) as folder,
    connection.Lifeline(server_address, deadline_seconds),
  ):
    connection.check(server_address, builder, deadline_seconds)
    versions = weights.Weights(server_address, tables.AGENT, builder.agent.variables)

    def publish(record: Mapping[str, float | None]) -> None:
      """Gives the evaluator what it can keep up with."""
      if builder.training.evaluates_after(record['iteration']):
        is_last = record['iteration'] == builder.training.num_iterations
        counters = (record[name] for name in ('gradient_steps', 'iteration', 'env_steps'))
        versions.publish(weights.Age(*counters, is_last))

    process = builder.method.make_remote_process(
      builder.agent,
      builder.run,
      agents_builder.Link(server_address, lambda: running.is_stopping(), deadline_seconds),
    )
    running = loop.Loop(builder, folder, [publish], process=process, evaluates=False)
    process.recover()
    running.save()
    progress = running.progress
    if progress.iteration:  # Perhaps the last learner died before somebody evaluated it.
      publish({**vars(progress), 'gradient_steps': running.gradient_steps})
    if not running.run():
      return False
    end = weights.Age(running.gradient_steps, progress.iteration, progress.env_steps, is_last=1)
    builder.method.make_weights(builder.agent, server_address).publish(end)
    return True
