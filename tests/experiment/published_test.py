"""Published agents act as the agent of the run did, and say what is wrong where they cannot."""

import json
import pathlib
import shutil
import tempfile

from absl.testing import absltest

from pearl_tf.evaluation import report
from pearl_tf.experiment import published, trained
from pearl_tf.testing import test_case, untrained_run


class PublishedTest(test_case.TestCase):
  @classmethod
  def setUpClass(cls):
    super().setUpClass()
    parent = pathlib.Path(cls.enterClassContext(tempfile.TemporaryDirectory()))
    cls.run_agent = trained.load(untrained_run.make(parent / 'run'))
    cls.result = cls.run_agent.meta_test(seed=3)
    about = {'env_steps': 360, 'meta_test': report.summarize(cls.result) | {'seed': 3}}
    cls.folder = parent / 'published' / 'line'
    published.publish(cls.run_agent.builder, parent / 'run', cls.folder, about)

  def test_acts_as_the_agent_of_the_run(self):
    agent = trained.load(pretrained=self.folder)
    self.assertEqual((agent.name, agent.env_steps), ('line', 360))
    self.assertEqual(int(agent.builder.agent.train_step_counter), 120)
    result = agent.meta_test(seed=agent.claim['seed'])
    self.assertEqual(report.summarize(result)['final_return'], agent.claim['final_return'])
    for own, other in zip(result.trajectories, self.result.trajectories, strict=True):
      self.assertAllEqual(own.observations, other.observations)

  def test_is_small(self):
    sizes = [path.stat().st_size for path in self.folder.iterdir()]
    whole = next((self.run_agent.outputs / 'checkpoints').glob('*/*.data*')).stat().st_size
    self.assertLess(sum(sizes), whole)

  def test_unknown_name_gets_the_list(self):
    with self.assertRaisesRegex(published.PublishedError, "no published agent 'none'; shipped are"):
      trained.load(pretrained='none')

  def test_damaged(self):
    for name in ('published.json', 'weights.index', 'weights.data-00000-of-00001'):
      copy = shutil.copytree(self.folder, self.temp_dir() / 'copy')
      (copy / name).write_bytes(b'')
      with self.subTest(name), self.assertRaisesRegex(published.PublishedError, 'copy is damaged'):
        trained.load(pretrained=copy)

  def test_only_published_agents_are_replaced(self):
    root, builder = self.run_agent.outputs, self.run_agent.builder
    about = {'env_steps': 1, 'meta_test': {}}
    target = self.temp_dir() / 'agents' / 'line'
    for env_steps in (2, 1):
      about['env_steps'] = env_steps
      published.publish(builder, root, target, about)
      self.assertEqual(json.loads((target / 'published.json').read_text())['env_steps'], env_steps)
    self.assertLen(list(target.parent.iterdir()), 1)
    with self.assertRaisesRegex(published.PublishedError, 'holds no published agent'):
      published.publish(builder, root, root, about)
    with self.assertRaisesRegex(published.PublishedError, 'cannot name an agent'):
      published.publish(builder, root, target.with_name('a b'), about)

  def test_exactly_one_agent_is_named(self):
    for names in ({}, {'root_dir': 'run', 'pretrained': 'line'}):
      with self.assertRaisesRegex(ValueError, 'either a run folder or the name'):
        trained.load(**names)


class ShippedTest(test_case.TestCase):
  def test_all_load(self):
    for name in published.names():
      with self.subTest(name):
        agent = trained.load(pretrained=name)
        self.assertLess(sum(p.stat().st_size for p in (published.SHIPPED / name).iterdir()), 2.5e6)
        self.assertGreater(agent.env_steps, 0)
        self.assertIsNotNone(agent.claim['final_return_interval'])


class TrainedTest(test_case.TestCase):
  def test_plays_infers_and_is_meta_tested(self):
    agent = trained.load(untrained_run.make(self.temp_dir() / 'run'))
    task = agent.tasks.test[0]
    first = agent.play(task, seed=1)
    self.assertEqual(first.observation.shape, (5, 1))
    self.assertAllEqual(first.next_observation[:-1], first.observation[1:])
    self.assertAllEqual(first.observation, agent.play(task, seed=1).observation)
    belief = agent.infer([first])
    both = agent.infer([first, agent.play(task, belief, seed=2)])
    self.assertTrue((both.variance < belief.variance).all())
    self.assertTrue((agent.infer([]).variance == 1).all())
    result = agent.meta_test([task], num_repeats=1, steps_per_repeat=10)
    self.assertLess(len(repr(result)), 200)
    self.assertLess(len(repr(result.trajectories)), 300)
    self.assertIn(f'task={task.index}, repeat=0, index=1', repr(result.trajectories))
    other = agent.meta_test([task], num_repeats=1, steps_per_repeat=10, seed=1)
    self.assertNotAllClose(result.trajectories[0].observations, other.trajectories[0].observations)


if __name__ == '__main__':
  absltest.main()
