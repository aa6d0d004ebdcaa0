"""What the builders of ProMP and MAML have in common: two phases, one before and one after."""

from collections.abc import Callable

import gin
import tensorflow as tf

from pearl_tf.agents import adapting_actor, adapting_agent, builder, on_policy
from pearl_tf.collect import schedule
from pearl_tf.data import specs


@gin.configurable(denylist=['agent_class'])
class AdaptingBuilder:
  """Makes the parts of a method that adapts by a gradient step; a `builder.AgentBuilder`."""

  name: str
  not_distributed = builder.ON_POLICY
  not_replicated = builder.ONE_DEVICE
  not_served = (
    'it adapts by a gradient step on whole episodes, which no signature of the server takes'
  )

  def __init__(
    self,
    agent_class: Callable[..., adapting_agent.AdaptingAgent],
    *,
    tasks_per_iteration: int = 40,
    episodes_per_stage: int = 20,
    steps_per_iteration: int = 1,
  ):
    """Keeps the settings.

    Args:
      agent_class: makes the agent.
      tasks_per_iteration: tasks an iteration, drawn with replacement.
      episodes_per_stage: episodes of each task before adaptation, and as many after it; where they
        may end early, as many transitions as if they did not.
      steps_per_iteration: outer steps on the data of an iteration.

    Raises:
      ValueError: if a number is not positive.
    """
    for argument, value in (
      ('tasks_per_iteration', tasks_per_iteration),
      ('episodes_per_stage', episodes_per_stage),
      ('steps_per_iteration', steps_per_iteration),
    ):
      if value < 1:
        raise ValueError(f'{type(self).__name__}.{argument} must be positive, got {value}')
    self._agent_class = agent_class
    self._tasks_per_iteration = tasks_per_iteration
    self._episodes_per_stage = episodes_per_stage
    self._steps_per_iteration = steps_per_iteration

  def check(self, agent: adapting_agent.AdaptingAgent, run: builder.Run) -> None:
    self.make_process(agent, run)

  def make_agent(self, domain: specs.DomainSpec, *, seed: int) -> adapting_agent.AdaptingAgent:
    counter = tf.Variable(0, dtype=tf.int64, trainable=False, name='train_step')
    return self._agent_class(domain, train_step_counter=counter, seed=seed)

  def check_evaluation(self, agent: adapting_agent.AdaptingAgent, context_sampling: str) -> None:
    pass

  def make_actor(
    self, domain: specs.DomainSpec, agent: adapting_agent.AdaptingAgent, *, deterministic: bool
  ) -> adapting_actor.AdaptingActor:
    del domain
    return adapting_actor.AdaptingActor(agent, deterministic=deterministic)

  def make_process(
    self,
    agent: adapting_agent.AdaptingAgent,
    run: builder.Run,
  ) -> on_policy.OnPolicyTraining:
    steps = self._episodes_per_stage * run.training.max_episode_steps
    return on_policy.OnPolicyTraining(
      agent,
      self.make_actor(run.domain, agent, deterministic=False),
      run,
      phases=[
        schedule.Phase(adapting_agent.PRE, steps, num_prior_episodes=None, in_context=True),
        schedule.Phase(adapting_agent.POST, steps, num_prior_episodes=0, in_context=False),
      ],
      tasks_per_iteration=self._tasks_per_iteration,
      steps_per_iteration=self._steps_per_iteration,
    )
