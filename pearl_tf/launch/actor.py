"""A process that collects: newest policy, a ticket, its episodes into the replay, and again."""

import time

from pearl_tf.agents import builder as agents_builder
from pearl_tf.collect import tickets
from pearl_tf.experiment import experiment as experiment_lib
from pearl_tf.experiment import interruption
from pearl_tf.launch import connection, start
from pearl_tf.replay import mailbox, tables

_POLL_SECONDS = 1.0


def act(
  server_address: str,
  number: int,
  experiment: experiment_lib.Experiment | None = None,
  *,
  deadline_seconds: float,
) -> bool:
  """Collects until the run is over.

  Args:
    server_address: `host:port` of the replay server.
    number: the actor's own, from 0; two at a time must not have the same.
    experiment: what the run is; by default what the server says.
    deadline_seconds: how long to wait for server and learner.

  Returns:
    True at the end of the run, False if a signal asked to stop.

  Raises:
    DisagreementError: if the server is of another run.
    TimeoutError: if server or learner do not show up in time.
    EnvironmentFault: if an environment breaks its contract.
  """
  if experiment is None:
    run = connection.read(server_address, deadline_seconds)
    experiment = experiment_lib.of_text(run['configuration'], run['seed'])
  builder = start.build(experiment)
  connection.check(server_address, builder, deadline_seconds)
  policy = builder.method.make_weights(builder.agent, server_address)
  orders = mailbox.Mailbox(server_address, tables.TICKETS, tickets.SPEC)
  with (
    interruption.Interruption() as stop,
    connection.Lifeline(server_address, deadline_seconds) as lifeline,
  ):
    link = agents_builder.Link(server_address, lambda: stop.requested is not None, deadline_seconds)
    collects = builder.method.make_ticket_collector(builder.agent, builder.run, link, number=number)
    waiting_since = time.monotonic()
    ticket = None
    while not link.is_stopping():
      with lifeline.call():
        ticket = ticket or orders.get(_POLL_SECONDS)
        age = policy.fetch(_POLL_SECONDS)  # The newest when there is something to do.
      if age is not None and age.is_last:
        return True
      waited = time.monotonic() - waiting_since
      if ticket is None or age is None:
        if waited > deadline_seconds:
          raise TimeoutError(
            f'actor {number} has waited {waited:.0f} s for a learner that gives out policy and '
            f'tickets at {server_address}: does it run?'
          )
        continue
      try:
        collects.serve(
          tickets.of_message(ticket), policy_step=age.gradient_steps, waited_ms=int(1000 * waited)
        )
      except agents_builder.StoppedError:
        break
      waiting_since, ticket = time.monotonic(), None
  return False
