"""The client of a PEARL agent: what a robot, or a service, needs to adapt over the network.

Any server with TensorFlow Serving's gRPC API and our signatures will do. Needs NumPy, gRPC and
protocol buffers only; `load` alone, which runs an export without a server, needs TensorFlow.

    from serving import client

    with client.connect('robot-brain:8500') as model, client.Session(model) as session:
      session.begin_task()
      for _ in range(num_episodes):
        session.begin_episode()
        action = session.step(observation)
        while not done:
          ...  # Do action.value; see what it leads to.
          action = session.step(observation, reward)
        session.end_episode(observation, reward)
        session.adapt()

docs/robot.md tells the rest.
"""

from serving.client import beliefs, channel, errors, local, manifest, options, session

Action = session.Action
Belief = beliefs.Belief
Connection = channel.Connection
Deadlines = options.Deadlines
Manifest = manifest.Manifest
Options = options.Options
Session = session.Session
Tls = options.Tls
connect = channel.connect
load = local.load
read_manifest = manifest.read_manifest

__all__ = [
  'Action',
  'Belief',
  'Connection',
  'Deadlines',
  'Manifest',
  'Options',
  'Session',
  'Tls',
  'connect',
  'errors',
  'load',
  'read_manifest',
]
