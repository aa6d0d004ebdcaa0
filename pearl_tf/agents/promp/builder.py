"""ProMP put together."""

from collections.abc import Callable

import gin

from pearl_tf.agents import adapting_builder
from pearl_tf.agents.promp import agent


@gin.configurable
class ProMPBuilder(adapting_builder.AdaptingBuilder):
  """Makes the parts of ProMP; a `builder.AgentBuilder`."""

  name = 'ProMP'

  def __init__(
    self,
    *,
    agent_class: Callable[..., agent.ProMPAgent] = agent.ProMPAgent,
    steps_per_iteration: int = 5,
    **adapting,
  ):
    """Keeps the settings.

    Args:
      agent_class: makes the agent.
      steps_per_iteration: outer steps of Adam, each on all data of the iteration.
      **adapting: of `AdaptingBuilder`.
    """
    super().__init__(agent_class, steps_per_iteration=steps_per_iteration, **adapting)
