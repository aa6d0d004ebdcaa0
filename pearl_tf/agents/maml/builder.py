"""MAML put together."""

from collections.abc import Callable

import gin

from pearl_tf.agents import adapting_builder
from pearl_tf.agents.maml import agent


@gin.configurable
class MAMLBuilder(adapting_builder.AdaptingBuilder):
  """Makes the parts of MAML; a `builder.AgentBuilder`."""

  name = 'MAML'

  def __init__(self, *, agent_class: Callable[..., agent.MAMLAgent] = agent.MAMLAgent, **adapting):
    """Keeps the settings.

    Args:
      agent_class: makes the agent.
      **adapting: of `AdaptingBuilder`; one step of the trust region an iteration.
    """
    super().__init__(agent_class, **adapting)
