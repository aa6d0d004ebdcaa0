import time

from absl.testing import absltest

from pearl_tf.agents import builder as agents_builder
from pearl_tf.experiment import builder as builder_lib
from pearl_tf.experiment import experiment as experiment_lib
from pearl_tf.launch import benchmark
from pearl_tf.replay import server
from pearl_tf.testing import small_run, test_case


class BenchmarkTest(test_case.TestCase):
  def test_what_is_measured_without_actors(self):
    slow = "registry.make.name = 'pearl_tf.launch.slow_simulator:SlowPointRobot'"
    experiment = experiment_lib.load([small_run.GIN_FILE], (*small_run.SMALL, slow))
    builder = builder_lib.Builder(experiment)
    running = self.enter_context(
      server.ReplayServer(builder.method.make_server_tables(builder.run))
    )
    link = agents_builder.Link(running.address, lambda: False, 60.0)
    process = builder.method.make_remote_process(builder.agent, builder.run, link)
    records = benchmark._replay(
      builder, process, running.address, 0.001, server_cpu_seconds=time.process_time
    )
    self.assertEqual([record['part'] for record in records], ['replay', 'learner', 'weights'])
    replay, learner, weights = records
    self.assertEqual(replay['row_bytes'], 4 * (2 + 2 + 2 + 3))
    rates = [replay[f'{name}_per_second'] for name in ('inserted', 'delivered')]
    self.assertLess(replay['one_after_the_other_per_second'], min(rates))
    self.assertGreater(replay['learner_cpu_microseconds'], 0)
    # 300 transitions in 40 steps, by whole episodes.
    self.assertEqual(learner['transitions_per_step'], 10)
    self.assertGreater(learner['steps_per_second_fed'], 0)
    self.assertGreater(weights['agent_bytes'], weights['policy_bytes'])
    self.assertLen(benchmark.lines(records), 3)


if __name__ == '__main__':
  absltest.main()
