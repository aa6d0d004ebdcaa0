"""RL2 put together."""

from collections.abc import Callable

import gin
import tensorflow as tf

from pearl_tf.agents import builder, on_policy
from pearl_tf.agents.rl2 import actor, agent
from pearl_tf.collect import schedule
from pearl_tf.data import specs


@gin.configurable
class RL2Builder:
  """Makes the parts of RL2; a `builder.AgentBuilder`."""

  name = 'RL2'
  not_distributed = builder.ON_POLICY
  not_replicated = builder.ONE_DEVICE
  not_served = ''

  def __init__(
    self,
    *,
    agent_class: Callable[..., agent.RL2Agent] = agent.RL2Agent,
    trials_per_iteration: int = 32,
    episodes_per_trial: int = 3,
  ):
    """Keeps the settings.

    Args:
      agent_class: makes the agent.
      trials_per_iteration: each on a task drawn with replacement.
      episodes_per_trial: over which the state goes on; where they may end early, as many
        transitions as if they did not.

    Raises:
      ValueError: if a number is not positive.
    """
    if trials_per_iteration < 1 or episodes_per_trial < 1:
      raise ValueError(
        'RL2Builder.trials_per_iteration and .episodes_per_trial must be positive, got '
        f'{trials_per_iteration} and {episodes_per_trial}'
      )
    self._agent_class = agent_class
    self._trials_per_iteration = trials_per_iteration
    self._episodes_per_trial = episodes_per_trial

  def check(self, learner: agent.RL2Agent, run: builder.Run) -> None:
    self.make_process(learner, run)

  def make_agent(self, domain: specs.DomainSpec, *, seed: int) -> agent.RL2Agent:
    counter = tf.Variable(0, dtype=tf.int64, trainable=False, name='train_step')
    return self._agent_class(domain, train_step_counter=counter, seed=seed)

  def check_evaluation(self, learner: agent.RL2Agent, context_sampling: str) -> None:
    pass

  def make_actor(
    self, domain: specs.DomainSpec, learner: agent.RL2Agent, *, deterministic: bool
  ) -> actor.RL2Actor:
    del domain
    return actor.RL2Actor(learner, deterministic=deterministic)

  def make_process(
    self,
    learner: agent.RL2Agent,
    run: builder.Run,
  ) -> on_policy.OnPolicyTraining:
    steps = self._episodes_per_trial * run.training.max_episode_steps
    return on_policy.OnPolicyTraining(
      learner,
      self.make_actor(run.domain, learner, deterministic=False),
      run,
      phases=[schedule.Phase(agent.TRIAL, steps, num_prior_episodes=None, in_context=True)],
      tasks_per_iteration=self._trials_per_iteration,
      steps_per_iteration=learner.steps_per_iteration,
    )
