import collections
import os
import threading
from unittest import mock

import numpy as np
import tensorflow as tf
from absl.testing import absltest, parameterized
from tf_agents.trajectories import time_step as ts

from pearl_tf.collect import rollout, schedule, trial
from pearl_tf.environments import gymnasium_adapter, tolerance
from pearl_tf.testing import fakes, test_case

SEED = np.random.SeedSequence([4, 2])
VISIT = [
  schedule.Phase('prior', 10, None, in_context=True),
  schedule.Phase('none', 0, 1, in_context=True),
  schedule.Phase('posterior', 12, 1, in_context=True),
  schedule.Phase('extra', 15, 1, in_context=False),
]


def run(tasks, *, num_environments, phases=VISIT, seed=SEED, acting=None, **environment):
  """Rolls one trial per task and returns finished episodes by trial, and the step count."""
  environments = fakes.line_adapters(num_environments, **environment)
  roll = rollout.Rollout(environments, acting or fakes.ScriptedActing())
  trials = [trial.Trial(task, phases) for task in tasks]
  finished = [[] for _ in tasks]
  num_steps = roll.run(
    trials, seed=seed, on_episode=lambda episode: finished[episode.trial_index].append(episode)
  )
  return finished, num_steps


def sequential(task, seed, *, max_episode_steps, termination_probability):
  """One trial of VISIT, step by step: what the roll-out must do, written for one environment."""
  environment = fakes.Line(termination_probability)
  environment.set_task(task)
  generator_seed = int(seed)
  acting = fakes.ScriptedActing
  context, episodes = [], []
  for name, num_steps, num_prior, joins in (
    ('prior', 10, 10**9, True),
    ('posterior', 12, 1, True),
    ('extra', 15, 1, False),
  ):
    steps = index = 0
    while steps < num_steps:
      mean, variance = acting.PRIOR_MEAN, 0.0
      if index >= num_prior:
        rewards = np.concatenate([episode['context_reward'] for episode in context])
        mean, variance = rewards.mean(), len(rewards)
      latent = np.float32(np.float32(mean) + np.float32(variance))
      observation, _ = environment.reset(seed=generator_seed)
      generator_seed = None
      columns = {'phase': name, 'observation': [], 'reward': [], 'context_reward': []}
      columns |= {'discount': [], 'next_observation': [], 'adapted': index >= num_prior}
      terminated = False
      while not terminated and len(columns['reward']) < max_episode_steps:
        action = np.clip(np.float32(0.5) * (latent - observation), -1, 1).astype(np.float32)
        columns['observation'].append(observation[0])
        observation, reward, terminated, _, info = environment.step(action * np.float32(0.5))
        columns['reward'].append(reward)
        columns['context_reward'].append(info['sparse_reward'])
        columns['discount'].append(0.0 if terminated else 1.0)
        columns['next_observation'].append(observation[0])
      episodes.append(columns)
      if joins:
        context.append(columns)
      steps += len(columns['reward'])
      index += 1
  return episodes


class RememberingActor:
  """Carries a nest of its own: the steps and the sum of rewards seen, and what it adapted to."""

  def __init__(self):
    self.first_step = 0
    self.rewards = []

  def initial_state(self, batch_size):
    steps = np.full([batch_size], self.first_step, np.int64)
    return {'steps': steps, 'memory': (np.zeros([batch_size, 1]), np.zeros([batch_size, 2]))}

  def act(self, observation, step_type, reward, state, seed):
    self.rewards.append(reward.tolist())
    total, lengths = state['memory']
    memory = (total + reward[:, np.newaxis], lengths)
    return np.zeros_like(observation), {'steps': state['steps'] + 1, 'memory': memory}

  def adapt(self, state, episodes_by_trial, random):
    lengths = [[len(own), sum(len(one.reward) for one in own)] for own in episodes_by_trial]
    return state | {'memory': (state['memory'][0], np.array(lengths, np.float64))}


class RolloutTest(test_case.TestCase):
  @parameterized.product(num_environments=[1, 3, 8], termination_probability=[0.0, 0.2])
  def test_equals_a_sequential_trial_whatever_the_others_do(
    self, num_environments, termination_probability
  ):
    # Seven trials wait for one, three or eight environments; episodes end at different times.
    tasks = fakes.line_tasks(7)
    limits = {'max_episode_steps': 5, 'termination_probability': termination_probability}
    finished, num_steps = run(tasks, num_environments=num_environments, **limits)
    seeds = np.random.SeedSequence([4, 2], spawn_key=(0,)).generate_state(7)
    total = 0
    for task, seed, episodes in zip(tasks, seeds, finished, strict=True):
      expected = sequential(task, seed, **limits)
      self.assertEqual([e.phase for e in episodes], [e['phase'] for e in expected])
      self.assertEqual([e.adapted for e in episodes], [e['adapted'] for e in expected])
      for actual, wanted in zip(episodes, expected, strict=True):
        self.assertEqual(actual.task.index, task.index)
        for name in ('reward', 'context_reward', 'discount'):
          self.assertAllClose(getattr(actual.episode, name), wanted[name], atol=1e-6, msg=name)
        for name in ('observation', 'next_observation'):
          self.assertAllClose(getattr(actual.episode, name)[:, 0], wanted[name], atol=1e-6)
        total += len(wanted['reward'])
    self.assertEqual(num_steps, total)

  def test_termination_has_discount_zero_and_the_time_limit_one(self):
    finished, _ = run(
      fakes.line_tasks(6), num_environments=3, max_episode_steps=5, termination_probability=0.2
    )
    lengths = set()
    for finished_episode in sum(finished, []):
      discount = finished_episode.episode.discount
      self.assertAllEqual(discount[:-1], np.ones(len(discount) - 1))
      lengths.add((len(discount), float(discount[-1])))
      if len(discount) < 5:
        self.assertEqual(discount[-1], 0.0)
    self.assertIn((5, 1.0), lengths)  # The time limit alone ...
    self.assertTrue(any(length < 5 for length, _ in lengths))  # ... and real terminations.

  def test_the_dense_reward_is_stored_beside_the_sparse_one(self):
    finished, _ = run(fakes.line_tasks(2), num_environments=2)
    for finished_episode in sum(finished, []):
      episode = finished_episode.episode
      distance = np.abs(episode.next_observation[:, 0] - finished_episode.task.parameters[0])
      self.assertAllClose(episode.reward, -distance, atol=1e-6)
      self.assertAllEqual(episode.context_reward, (distance < 0.25).astype(np.float32))

  def test_episodes_are_whole_and_connected(self):
    finished, _ = run(fakes.line_tasks(2), num_environments=2)
    for finished_episode in sum(finished, []):
      episode = finished_episode.episode
      self.assertTrue(all(column.dtype == np.float32 for column in episode))
      self.assertAllEqual(episode.observation[1:], episode.next_observation[:-1])

  def test_the_state_reported_is_the_one_acted_on(self):
    finished, _ = run(fakes.line_tasks(3), num_environments=2)
    acting = fakes.ScriptedActing
    for episodes in finished:
      context = []
      for episode in episodes:
        mean, variance = episode.state.posterior
        self.assertEqual(episode.state.latent, acting.draw(mean, variance))
        if episode.adapted:
          self.assertEqual(variance, len(np.concatenate(context)))
        else:
          self.assertEqual((mean, variance), (acting.PRIOR_MEAN, 0.0))
        if episode.in_context:
          context.append(episode.episode.context_reward)

  def test_a_sub_sample_has_the_size_asked_for_and_rows_of_its_own_trial(self):
    phases = [
      schedule.Phase('prior', 10, None, in_context=True),
      schedule.Phase('extra', 20, 1, in_context=False, context_size=64),
    ]
    acting = fakes.ScriptedActing()
    finished, _ = run(fakes.line_tasks(3), num_environments=2, phases=phases, acting=acting)
    # Four extra episodes of five steps each, the first of them on the prior.
    self.assertLen(acting.contexts, 3 * 3)
    own = [
      {float(x) for e in episodes if e.in_context for x in e.episode.observation[:, 0]}
      for episodes in finished
    ]
    seen = []
    for context in acting.contexts:
      self.assertLen(context.reward, 64)
      drawn = {float(x) for x in context.observation[:, 0]}
      owners = [index for index, values in enumerate(own) if drawn <= values]
      self.assertLen(owners, 1)
      seen.append(tuple(context.observation[:, 0].tolist()))
    self.assertLen(set(seen), 9)  # A new sub-sample before each episode.

  def test_the_number_of_environments_changes_no_seed(self):
    tasks = fakes.line_tasks(5)
    starts = []
    for num_environments in (1, 2, 5, 9):
      finished, _ = run(tasks, num_environments=num_environments)
      starts.append([[float(e.episode.observation[0, 0]) for e in es] for es in finished])
    self.assertEqual(starts[0], starts[1])
    self.assertEqual(starts[0], starts[2])
    self.assertEqual(starts[0], starts[3])
    self.assertLen({start for episodes in starts[0] for start in episodes}, 5 * 8)

  def test_the_seed_decides(self):
    def observations(seed):
      finished, _ = run(
        fakes.line_tasks(4), num_environments=3, seed=seed, termination_probability=0.2
      )
      return [e.episode.observation[:, 0].tolist() for es in finished for e in es]

    self.assertEqual(observations(SEED), observations(np.random.SeedSequence([4, 2])))
    self.assertNotEqual(observations(SEED), observations(np.random.SeedSequence([4, 3])))

  def test_a_rollout_is_used_again_without_traces(self):
    tasks = fakes.line_tasks(3)
    roll = rollout.Rollout(fakes.line_adapters(2), fakes.ScriptedActing())
    results = []
    for _ in range(2):
      finished = []
      roll.run([trial.Trial(t, VISIT) for t in tasks], seed=SEED, on_episode=finished.append)
      results.append([e.episode.observation.tolist() for e in finished])
    self.assertEqual(results[0], results[1])

  def test_a_rollout_is_used_again_after_a_fault(self):
    adapters = [
      gymnasium_adapter.GymnasiumAdapter(fakes.FaultyLine('raise'), max_episode_steps=5)
      for _ in range(2)
    ]
    roll = rollout.Rollout(adapters, fakes.ScriptedActing())
    tasks = fakes.line_tasks(2)
    ignore = [].append
    with self.assertRaises(gymnasium_adapter.EnvironmentFault):
      roll.run([trial.Trial(t, VISIT) for t in tasks], seed=SEED, on_episode=ignore)
    finished = []
    roll.run([trial.Trial(tasks[0], VISIT)], seed=SEED, on_episode=finished.append)
    self.assertEqual({len(e.episode.reward) for e in finished}, {5})

  def test_trials_of_no_steps_are_passed_over(self):
    nothing = [schedule.Phase('none', 0, None, in_context=True)]
    finished, num_steps = run(fakes.line_tasks(3), num_environments=2, phases=nothing)
    self.assertEqual((sum(finished, []), num_steps), ([], 0))
    roll = rollout.Rollout(fakes.line_adapters(1), fakes.ScriptedActing())
    tasks = fakes.line_tasks(3)
    trials = [
      trial.Trial(tasks[0], nothing),
      trial.Trial(tasks[1], VISIT[:1]),
      trial.Trial(tasks[2], nothing),
    ]
    finished = []
    roll.run(trials, seed=SEED, on_episode=finished.append)
    self.assertEqual({e.trial_index for e in finished}, {1})
    self.assertEqual(roll.run([], seed=SEED, on_episode=finished.append), 0)

  def test_idle_environments_are_not_stepped(self):
    acting = fakes.ScriptedActing()
    _, num_steps = run(fakes.line_tasks(3), num_environments=8, acting=acting)
    self.assertEqual(max(acting.batches), 3)
    self.assertEqual(sum(acting.batches), num_steps)

  @parameterized.parameters(*fakes.FAULTS)
  def test_a_fault_names_environment_and_task(self, fault):
    adapters = [
      gymnasium_adapter.GymnasiumAdapter(fakes.FaultyLine(fault), max_episode_steps=5)
      for _ in range(2)
    ]
    roll = rollout.Rollout(adapters, fakes.ScriptedActing())
    tasks = fakes.line_tasks(3)
    with self.assertRaises(gymnasium_adapter.EnvironmentFault) as caught:
      roll.run([trial.Trial(t, VISIT) for t in tasks], seed=SEED, on_episode=[].append)
    message = str(caught.exception)
    self.assertIn('Environment FaultyLine, task 1 (parameters', message)
    self.assertIn(fakes.FAULTS[fault], message)

  @parameterized.parameters('nan', 'huge', 'spike', 'diverged')
  def test_an_episode_in_which_the_simulator_blows_up_is_thrown_away(self, kind):
    counts = tolerance.Tolerance()
    adapters = [
      gymnasium_adapter.GymnasiumAdapter(
        fakes.UnstableLine(kind), max_episode_steps=5, tolerance=counts
      )
      for _ in range(3)
    ]
    acting = fakes.ScriptedActing()
    roll = rollout.Rollout(adapters, acting)
    finished = []
    trials = [trial.Trial(task, VISIT) for task in fakes.line_tasks(20)]
    num_steps = roll.run(trials, seed=SEED, on_episode=finished.append)
    # 2 + 3 + 3 episodes of 5 steps a trial, whatever was thrown away.
    self.assertLen(finished, 20 * 8)
    for one in finished:
      self.assertLen(one.episode.reward, 5)
      for column in one.episode:
        self.assertAllInRange(column, -1e6, 1e6)
      self.assertTrue((one.episode.next_observation[:-1] == one.episode.observation[1:]).all())
    self.assertGreater(counts.num_dropped, 0)
    self.assertEqual(counts.num_episodes, len(finished) + counts.num_dropped)
    self.assertBetween(num_steps - 5 * len(finished), counts.num_dropped, 5 * counts.num_dropped)

  def test_what_a_trial_carries_forgets_an_episode_that_is_thrown_away(self):
    class Counting:
      def initial_state(self, batch_size):
        return {'steps': np.zeros([batch_size, 1], np.float32)}

      def act(self, observation, step_type, reward, state, seed):
        return np.zeros_like(observation), {'steps': state['steps'] + 1}

      def adapt(self, state, episodes_by_trial, random):
        return state

    counts = tolerance.Tolerance()
    adapters = [
      gymnasium_adapter.GymnasiumAdapter(
        fakes.UnstableLine(), max_episode_steps=5, tolerance=counts
      )
      for _ in range(3)
    ]
    phases = [schedule.Phase('all', 50, None, in_context=True)]
    trials = [trial.Trial(task, phases) for task in fakes.line_tasks(9)]
    finished = []
    rollout.Rollout(adapters, Counting()).run(trials, seed=SEED, on_episode=finished.append)
    self.assertGreater(counts.num_dropped, 0)
    for one in finished:
      self.assertAllEqual(one.state['steps'], [5 * (one.index + 1)])

  def test_threads_change_nothing(self):
    seen = collections.defaultdict(set)

    def collect(in_threads):
      class Threaded(fakes.UnstableLine):
        steps_in_threads = in_threads

        def step(self, action):
          seen[in_threads].add(threading.get_ident())
          return super().step(action)

      counts = tolerance.Tolerance()
      adapters = [
        gymnasium_adapter.GymnasiumAdapter(Threaded(), max_episode_steps=5, tolerance=counts)
        for _ in range(19)
      ]
      finished = []
      trials = [trial.Trial(task, VISIT) for task in fakes.line_tasks(40)]
      with mock.patch.object(os, 'sched_getaffinity', return_value={0, 1}):
        roll = rollout.Rollout(adapters, fakes.ScriptedActing())
      num_steps = roll.run(trials, seed=SEED, on_episode=finished.append)
      return num_steps, counts.num_dropped, [(one.trial_index, one.episode) for one in finished]

    (steps, dropped, alone), (*numbers, threaded) = collect(False), collect(True)
    self.assertEqual(numbers, [steps, dropped])
    self.assertGreater(dropped, 0)
    tf.nest.map_structure(self.assertAllEqual, alone, threaded)
    self.assertEqual([len(seen[in_threads]) for in_threads in (False, True)], [1, 2])

  def test_a_fault_in_a_thread_ends_when_all_have_stepped(self):
    class Threaded(fakes.FaultyLine):
      steps_in_threads = True

    adapters = [
      gymnasium_adapter.GymnasiumAdapter(Threaded(), max_episode_steps=5) for _ in range(16)
    ]
    with mock.patch.object(os, 'sched_getaffinity', return_value={0, 1}):
      roll = rollout.Rollout(adapters, fakes.ScriptedActing())
    for first in (1, 9):  # In either half.
      tasks = fakes.line_tasks(16)
      tasks[1], tasks[first] = tasks[first], tasks[1]
      with self.assertRaisesRegex(gymnasium_adapter.EnvironmentFault, 'FaultyLine|Threaded'):
        roll.run([trial.Trial(t, VISIT) for t in tasks], seed=SEED, on_episode=[].append)

  def test_an_episode_has_to_end(self):
    endless = gymnasium_adapter.GymnasiumAdapter(fakes.Line())
    with self.assertRaisesRegex(ValueError, 'Line has no max_episode_steps'):
      rollout.Rollout([endless], fakes.ScriptedActing())
    with self.assertRaisesRegex(ValueError, 'at least one environment'):
      rollout.Rollout([], fakes.ScriptedActing())

  def test_what_a_trial_carries_is_any_nest_and_lasts_as_long_as_a_phase(self):
    phases = [schedule.Phase('one', 15, 1, in_context=True), schedule.Phase('two', 5, 0, False)]
    finished, _ = run(
      fakes.line_tasks(5), num_environments=2, phases=phases, acting=RememberingActor()
    )
    for one in finished:
      self.assertEqual([int(each.state['steps']) for each in one], [5, 10, 15, 5])
      # Whole episodes, their ends kept, all those before.
      adapted_to = [each.state['memory'][1].tolist() for each in one]
      self.assertEqual(adapted_to, [[0, 0], [1, 5], [2, 10], [3, 15]])

  def test_the_context_reward_of_the_last_step_outlives_the_episode_but_not_the_trial(self):
    actor = RememberingActor()
    phases = [schedule.Phase('p', 10, None, in_context=True)]
    finished, _ = run(fakes.line_tasks(3), num_environments=1, phases=phases, acting=actor)
    given = np.concatenate(actor.rewards).reshape(3, 10)
    for own, episodes in zip(given, finished, strict=True):
      rewards = np.concatenate([one.episode.context_reward for one in episodes])
      self.assertAllEqual(own, [0.0, *rewards[:-1]])
    self.assertGreater(given.sum(), 0)

  def test_what_a_trial_begins_with_is_asked_anew_in_every_run(self):
    actor = RememberingActor()
    roll, ends = rollout.Rollout(fakes.line_adapters(1), actor), []
    phases = [schedule.Phase('p', 5, None, in_context=True)]
    for actor.first_step in (0, 70):
      trials = [trial.Trial(fakes.line_tasks(1)[0], phases)]
      roll.run(trials, seed=SEED, on_episode=lambda one: ends.append(int(one.state['steps'])))
    self.assertEqual(ends, [5, 75])

  def test_step_types_reach_the_policy(self):
    types_seen = []

    class Watching(fakes.ScriptedActing):
      def act(self, observation, step_type, reward, state, seed):
        types_seen.extend(step_type.tolist())
        return super().act(observation, step_type, reward, state, seed)

    run(fakes.line_tasks(1), num_environments=1, phases=VISIT[:1], acting=Watching())
    self.assertEqual(types_seen, ([int(ts.StepType.FIRST)] + 4 * [int(ts.StepType.MID)]) * 2)


if __name__ == '__main__':
  absltest.main()
