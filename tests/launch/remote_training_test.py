"""A learner and two actors that take turns in one process, at a real server."""

import time

import numpy as np
from absl.testing import absltest

from pearl_tf.agents import builder as agents_builder
from pearl_tf.collect import tickets
from pearl_tf.experiment import builder as builder_lib
from pearl_tf.experiment import experiment as experiment_lib
from pearl_tf.replay import mailbox, server, tables
from pearl_tf.testing import small_run, test_case

NUM_TASKS = 4
ROUND = 300  # 3 visits of 40 + 20 + 40 steps.


class RemoteTrainingTest(test_case.TestCase):
  @classmethod
  def setUpClass(cls):
    super().setUpClass()
    bindings = (*small_run.LINE, 'Training.num_environments = 2')
    cls.builder = builder_lib.Builder(experiment_lib.load([small_run.GIN_FILE], bindings))
    acting = cls.builder.make_actor(deterministic=False)  # Compiled once for all tests.
    cls.builder.method.make_actor = lambda *args, **kwargs: acting

  def setUp(self):
    super().setUp()
    self.builder.agent.train_step_counter.assign(0)
    self.start_server(None)
    self.make_learner()
    self.learner.recover()
    self.actors = [
      self.builder.method.make_ticket_collector(
        self.builder.agent, self.builder.run, self.link, number=number
      )
      for number in range(2)
    ]
    self.numbers, self.visits = [], []
    self.has_actors = True

  def start_server(self, port):
    self.tables = self.builder.method.make_server_tables(self.builder.run)
    self.server = server.ReplayServer(self.tables, port=port)
    self.addCleanup(self.server.stop)
    self.link = agents_builder.Link(self.server.address, self.let_actors_work, 60.0)
    self.tickets = mailbox.Mailbox(self.server.address, tables.TICKETS, tickets.SPEC)

  def make_learner(self):
    # Who asks whether to go on waiting gives the actors their turn.
    self.learner = self.builder.method.make_remote_process(
      self.builder.agent, self.builder.run, self.link
    )

  def let_actors_work(self):
    if self.has_actors:
      self.has_actors = False  # They ask, too.
      self.serve()
      self.has_actors = True
    return False

  def serve(self):
    """Has both actors take a ticket, if there is one; returns the tickets."""
    served = []
    for actor in self.actors:
      message = self.tickets.get(0.05)
      if message is not None:
        served.append(tickets.of_message(message))
        self.numbers.append(served[-1].number)
        self.visits.append(len(served[-1].tasks))
        actor.serve(served[-1], policy_step=0, waited_ms=500)
    return served

  def cache(self):
    return self.learner.variables()['cache']

  def test_the_order_of_a_run(self):
    pool = self.learner.prepare()
    self.assertEqual(pool.env_steps, NUM_TASKS * 40)  # Once, over both actors.
    self.assertEqual(set(pool.returns), {'initial'})
    self.assertLen(self.numbers, 2)
    for task in range(NUM_TASKS):
      self.assertEqual(self.cache().num_context_transitions(task), 40)

    first = self.learner.collect(0)
    self.assertGreaterEqual(first.env_steps, ROUND)
    self.assertEqual(set(first.returns), {'prior', 'posterior', 'extra'})
    self.assertEqual(first.values['actors/staleness'], 0)
    self.assertEqual(first.values['learner/update_to_data'], 0)
    self.assertBetween(first.values['actors/waiting_share'], 0.01, 1.0)
    # The actors are held: with one round ahead there is room for two in all.
    collected = self.cache().num_rows - pool.env_steps
    while self.serve():
      self.learner.train(10)
      collected = self.cache().num_rows - pool.env_steps
    self.assertEqual(collected, 2 * ROUND)
    self.learner.train(10)
    self.assertEmpty(self.serve())

    self.assertLen(set(self.numbers), len(self.numbers))
    rows = np.concatenate([self.cache().replay_rows(task) for task in range(NUM_TASKS)])
    self.assertLen(np.unique(rows, axis=0), len(rows))
    # What was collected ahead is there for the next iteration, without a wait.
    self.has_actors = False
    second = self.learner.collect(1)
    self.assertGreaterEqual(first.env_steps + second.env_steps, 2 * ROUND)

  def test_a_context_is_of_one_visit(self):
    self.learner.prepare()
    self.has_actors = False
    earlier, later = (tickets.Ticket(tickets.number(1, 900 + i), False, [1, 1]) for i in range(2))
    self.actors[0].serve(later, policy_step=0, waited_ms=0)
    self.actors[1].serve(earlier, policy_step=0, waited_ms=0)  # The slower one of two.
    self.learner.state()
    self.assertEqual(self.cache().visit(1), later.number)
    self.assertEqual(self.cache().num_context_transitions(1), 60)  # One visit's, of three phases.
    self.assertEqual(self.cache().num_transitions(1), 40 + 4 * 100)

  def test_a_learner_that_died_takes_everything_again_once(self):
    self.learner.prepare()
    self.learner.collect(0)
    saved, state = self.cache(), self.learner.state()
    kept = {task: saved.replay_rows(task).numpy() for task in range(NUM_TASKS)}
    self.serve()
    self.learner.collect(1)
    everything = self.cache().num_rows
    self.serve()  # This is still in `fresh`.
    on_server = sum(info.current_size for name, info in self.sizes() if name.startswith('replay'))

    self.make_learner()
    for task, rows in kept.items():  # Stands for the checkpoint.
      self.cache().add(task, rows, in_context=True, visit=1)
    self.learner.restore(state)
    self.learner.recover()
    again = self.learner.state()
    self.assertEqual(again['starts'], 2)
    self.assertGreater(self.cache().num_rows, everything)
    rows = np.concatenate([self.cache().replay_rows(task) for task in range(NUM_TASKS)])
    self.assertLen(np.unique(rows, axis=0), len(rows))
    self.assertEqual(len(rows), 5 * on_server)  # Each episode has five steps.
    self.assertEqual(len(rows), again['visited'] + sum(again['initial']))

  def sizes(self):
    client = mailbox.reverb.Client(self.server.address)
    return client.server_info().items()

  def test_a_new_server_is_filled_from_the_cache(self):
    self.learner.prepare()
    self.learner.collect(0)
    port = self.server.port
    self.server.stop()
    self.start_server(port)
    self.learner.train(10)
    trajectories = self.cache().num_rows / 5
    self.assertEqual(
      sum(info.current_size for name, info in self.sizes() if name.startswith('replay')),
      trajectories,
    )
    self.learner.collect(2)
    self.assertGreaterEqual(self.learner.state()['visited'], 3 * ROUND)

  def test_tasks_of_the_pool_that_do_not_come_are_asked_for_again(self):
    self.learner.settings = type(self.learner.settings)(patience_seconds=0.01)
    lost = []
    serve = self.serve

    def lose_the_first():
      if not lost:
        lost.append(self.tickets.get(5.0))
      serve()

    self.serve = lose_the_first
    self.learner.prepare()
    for task in range(NUM_TASKS):
      self.assertGreaterEqual(self.cache().num_transitions(task), 40)

  def test_a_ticket_whose_actor_died_is_given_out_again(self):
    self.learner.settings = type(self.learner.settings)(
      rounds_ahead=0, visits_per_ticket=3, patience_seconds=0.5
    )
    self.learner.prepare()
    self.has_actors = False
    self.learner.state()  # Takes what came.
    self.learner.train(10)
    lost = tickets.of_message(self.tickets.get(5.0))
    self.learner.train(10)
    self.assertEmpty(self.serve())  # It may still come.
    time.sleep(0.6)
    self.learner.train(10)
    (again,) = self.serve()
    self.assertGreater(again.number, lost.number)
    self.assertGreaterEqual(self.learner.collect(0).env_steps, ROUND)

  def test_tickets_are_shared_by_the_actors_that_were_heard_of(self):
    self.learner.settings = type(self.learner.settings)(rounds_ahead=0)
    self.assertEqual(self.learner._visits, 3)
    self.learner.prepare()  # Both come.
    self.learner.collect(0)
    self.assertEqual(self.visits[-3:], [1, 1, 1])
    self.learner.settings = type(self.learner.settings)(rounds_ahead=1)
    self.assertEqual(self.learner._visits, 3)  # Two rounds at once are three visits for each.

  def test_a_run_of_one_process_goes_on(self):
    self.learner.restore({})
    collected = self.learner.collect(2)
    self.assertBetween(collected.env_steps, ROUND, 3 * ROUND)
    self.assertGreaterEqual(self.learner.state()['visited'], 3 * ROUND)
    self.assertNotIn('initial', collected.returns)

  def test_actors_that_never_come_are_named(self):
    self.link = self.link._replace(deadline_seconds=0.1, is_stopping=lambda: False)
    self.make_learner()
    with self.assertRaisesRegex(TimeoutError, 'the initial pool of 4 tasks, and no actor has sent'):
      self.learner.prepare()
    self.link = self.link._replace(is_stopping=lambda: True)
    self.make_learner()
    with self.assertRaises(agents_builder.StoppedError):
      self.learner.prepare()


if __name__ == '__main__':
  absltest.main()
