"""The client of a served PEARL agent: what a robot, or a service, needs to adapt over the network.

It knows signatures only: no training code is imported, and any server with TensorFlow Serving's
gRPC API and our signatures will do.

    from serving import client

    with client.connect('localhost:8500') as connection:
      session = client.Session(connection)
      session.begin_episode()
      action = session.act(observation)
      session.observe(observation, action, reward, next_observation)
      session.adapt()

Public: `connect`, `Connection`, `Session`, `Options`, `Deadlines`, `Retries`, `Tls`, `Belief`, the
modules `errors` and `aio` (the same for asyncio), and, imported where they are needed because they
need TF-Agents and TFP, the modules `remote_policy` (a TF-Agents policy) and `remote_acting` (for
our meta-test).
"""

from serving.client import aio, belief, connection, errors, options, session

Belief = belief.Belief
Connection = connection.Connection
Deadlines = options.Deadlines
Options = options.Options
Retries = options.Retries
Session = session.Session
Tls = options.Tls
connect = connection.connect

__all__ = [
  'Belief',
  'Connection',
  'Deadlines',
  'Options',
  'Retries',
  'Session',
  'Tls',
  'aio',
  'connect',
  'errors',
]
