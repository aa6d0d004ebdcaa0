"""The example on the page about environments is complete and works as it stands."""

import importlib
import pathlib
import re
import sys
import tempfile

import gin
import gymnasium
import numpy as np
from absl.testing import absltest
from gymnasium.utils import env_checker
from tf_agents.environments import utils

from pearl_tf import environments
from pearl_tf.environments import gymnasium_adapter, registry
from pearl_tf.testing import test_case

_PAGE = pathlib.Path(environments.__file__).parents[2] / 'docs' / 'environments.md'


class DocumentationTest(test_case.TestCase):
  def setUp(self):
    super().setUp()
    self._page = _PAGE.read_text()

  def test_the_example_is_a_family_that_one_line_of_gin_names(self):
    (program,) = re.findall(r'```python\n(.*?)```', self._page, flags=re.DOTALL)
    (binding,) = re.findall(r'```\n(registry\.make\.name.*?)\n```', self._page)
    folder = self.enter_context(tempfile.TemporaryDirectory())
    (pathlib.Path(folder) / 'reach_1d.py').write_text(program)
    sys.path.insert(0, folder)
    self.addCleanup(sys.path.remove, folder)
    self.addCleanup(sys.modules.pop, 'reach_1d', None)
    importlib.invalidate_caches()
    gin.parse_config([binding, 'registry.make.noise = 0.0'])

    env = registry.make()
    self.assertEqual(type(env).__name__, 'Reach1D')
    env_checker.check_env(env, skip_render_check=True)
    adapter = gymnasium_adapter.GymnasiumAdapter(env, max_episode_steps=30, seed=0)
    utils.validate_py_environment(adapter, episodes=2)
    for task in adapter.sample_tasks(3, seed=0):
      adapter.set_task(task)
      step = adapter.reset()
      while not step.is_last():
        error = task.parameters - step.observation[:1]
        step = adapter.step(np.clip(error - step.observation[1:], -1, 1).astype(np.float32))
      self.assertGreater(float(step.reward), -0.5)

  def test_every_registered_family_is_on_the_page_and_no_other(self):
    named = set(re.findall(r'^\| `(pearl/[\w-]+)`', self._page, flags=re.MULTILINE))
    self.assertEqual(named, set(environments.FAMILIES))

  def test_the_sizes_on_the_page_are_those_of_the_environments(self):
    rows = re.findall(r'^\| `(pearl/[\w-]+)` \|[^|]*\| (\d+), (\d+) \|', self._page, re.MULTILINE)
    self.assertLen(rows, len(environments.FAMILIES))
    for env_id, observation, action in rows:
      env = registry.make(env_id)
      self.assertIsInstance(env, gymnasium.Env)
      sizes = (env.observation_space.shape[0], env.action_space.shape[0])
      self.assertEqual(sizes, (int(observation), int(action)), env_id)


if __name__ == '__main__':
  absltest.main()
