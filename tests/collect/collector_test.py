import numpy as np
from absl.testing import absltest

from pearl_tf.collect import collector, rollout, schedule
from pearl_tf.testing import fakes, test_case

SEED = np.random.SeedSequence([1, 2])


class RecordingWriter:
  """Keeps what the replay would be told: the context and the replay of each task."""

  def __init__(self):
    self.replay = {}
    self.context = {}
    self.visits = {}
    self.unflushed = 0

  def write(self, task_index, episode, *, in_context, visit, phase):
    self.replay.setdefault(task_index, []).append(episode)
    if visit > self.visits.get(task_index, -1):
      self.visits[task_index] = visit
      self.context[task_index] = []
    if in_context:
      self.context[task_index].append(episode)
    self.unflushed += 1

  def flush(self):
    self.unflushed = 0


def make(collect_schedule, *, num_environments=3, context_size=16, acting=None):
  writer = RecordingWriter()
  roll = rollout.Rollout(fakes.line_adapters(num_environments), acting or fakes.ScriptedActing())
  return collector.Collector(roll, writer, collect_schedule, context_size=context_size), writer


def starts(episodes):
  return [float(episode.observation[0, 0]) for episode in episodes]


class CollectorTest(test_case.TestCase):
  def test_the_initial_pool_is_replay_and_context_of_every_task(self):
    collect, writer = make(schedule.CollectSchedule(initial_steps=12))
    collected = collect.fill(fakes.line_tasks(4), seed=SEED)
    self.assertEqual(collected.env_steps, 4 * 15)  # Three whole episodes of five steps.
    self.assertEqual(set(writer.replay), {0, 1, 2, 3})
    for task in range(4):
      self.assertLen(writer.replay[task], 3)
      self.assertEqual(starts(writer.context[task]), starts(writer.replay[task]))
    self.assertEqual(set(collected.returns), {'initial'})
    self.assertEqual(writer.unflushed, 0)

  def test_a_visit_replaces_the_context_and_extra_stays_out_of_it(self):
    collect, writer = make(
      schedule.CollectSchedule(prior_steps=10, posterior_steps=10, extra_steps=15)
    )
    tasks = fakes.line_tasks(3)
    collect.fill(tasks, seed=SEED)
    before = starts(writer.context[1])
    collected = collect.visit([tasks[1]], seed=SEED, number=1)
    self.assertEqual(collected.env_steps, 35)
    self.assertLen(writer.context[1], 4)
    self.assertTrue(set(before).isdisjoint(starts(writer.context[1])))
    self.assertEqual(starts(writer.context[1]), starts(writer.replay[1][-7:-3]))
    self.assertEqual(set(collected.returns), {'prior', 'posterior', 'extra'})

  def test_returns_are_means_of_sparse_returns_by_phase(self):
    collect, writer = make(schedule.CollectSchedule(prior_steps=10, extra_steps=15))
    collected = collect.visit(fakes.line_tasks(2), seed=SEED, number=1)
    expected = [float(e.context_reward.sum()) for t in (0, 1) for e in writer.context[t]]
    self.assertAlmostEqual(collected.returns['prior'], np.mean(expected))
    extra = [float(e.context_reward.sum()) for t in (0, 1) for e in writer.replay[t][2:]]
    self.assertAlmostEqual(collected.returns['extra'], np.mean(extra))

  def test_a_phase_without_steps_reports_nothing(self):
    collect, _ = make(schedule.CollectSchedule(prior_steps=5, extra_steps=0))
    collected = collect.visit(fakes.line_tasks(1), seed=SEED, number=1)
    self.assertEqual((collected.env_steps, set(collected.returns)), (5, {'prior'}))

  def test_of_two_visits_to_a_task_the_last_leaves_its_context(self):
    acting = fakes.ScriptedActing()
    collect, writer = make(
      schedule.CollectSchedule(prior_steps=10, extra_steps=10), acting=acting, num_environments=4
    )
    tasks = fakes.line_tasks(2)
    collect.visit([tasks[0], tasks[1], tasks[0]], seed=SEED, number=1)
    self.assertLen(writer.replay[0], 8)  # Both visits are kept for the critics.
    self.assertLen(writer.context[0], 2)
    # The visits run side by side with seeds of their own: the third trial is the last visit.
    seeds = np.random.SeedSequence([1, 2], spawn_key=(0,)).generate_state(3)
    environment = fakes.Line()
    observation, _ = environment.reset(seed=int(seeds[2]))
    self.assertEqual(starts(writer.context[0])[0], float(observation[0]))
    # Each visit inferred from its own data: no context mixes rows of both.
    kept = {float(x) for e in writer.context[0] for x in e.observation[:, 0]}
    other = {float(x) for e in writer.replay[0] for x in e.observation[:, 0]} - kept
    of_task_0 = 0
    for context in acting.contexts:
      drawn = {float(x) for x in context.observation[:, 0]}
      self.assertFalse(drawn & kept and drawn & other)
      of_task_0 += bool(drawn & (kept | other))
    self.assertEqual(of_task_0, 2)

  def test_the_context_size_is_that_of_training(self):
    acting = fakes.ScriptedActing()
    collect, _ = make(
      schedule.CollectSchedule(prior_steps=5, extra_steps=10), context_size=37, acting=acting
    )
    collect.visit(fakes.line_tasks(2), seed=SEED, number=1)
    self.assertEqual([len(context.reward) for context in acting.contexts], [37, 37])


if __name__ == '__main__':
  absltest.main()
