"""The process that holds the tables of a run.

It keeps nothing: the learner fills the tables of a new server from its cache, so that a server that
died is started again with the same command and port, and nothing else.
"""

import signal

from pearl_tf.experiment import experiment as experiment_lib
from pearl_tf.experiment import interruption
from pearl_tf.launch import connection, start
from pearl_tf.replay import server


def serve(experiment: experiment_lib.Experiment, port: int) -> None:
  """Serves until a signal ends it.

  Args:
    experiment: what the run is.
    port: TCP port, on every network interface.

  Raises:
    ConfigError: if the method cannot be distributed.
  """
  builder = start.build(experiment)
  tables = builder.method.make_server_tables(builder.run)
  with interruption.Interruption() as stop, server.ReplayServer(tables, port=port) as running:
    connection.announce(running.address, builder)
    print(f'serving the replay at port {running.port}', flush=True)
    while stop.requested is None:
      signal.sigtimedwait([], 1)  # A signal with a handler ends the wait.
