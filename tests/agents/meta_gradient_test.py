import numpy as np
import tensorflow as tf
from absl.testing import absltest, parameterized

from pearl_tf.agents import meta_gradient
from pearl_tf.agents.maml import losses as maml_losses
from pearl_tf.agents.maml import trust_region
from pearl_tf.agents.promp import losses as promp_losses
from pearl_tf.networks import flat_gaussian
from pearl_tf.testing import test_case

TASKS, ROWS, OBSERVATION, ACTION = 4, 30, 3, 2
STEP = 0.1
STEP_AND_CLIP = {'step_size': STEP, 'clip': 0.3, 'kl_weight': 0.05}


def gradient(function, point):
  with tf.GradientTape() as tape:
    tape.watch(point)
    value = function(point)
  return tape.gradient(value, point)


def central_differences(function, point, size=1e-6):
  point, result = point.numpy(), []
  for index in range(len(point)):
    move = np.zeros_like(point)
    move[index] = size
    ends = [function(tf.constant(point + sign * move)).numpy() for sign in (1, -1)]
    result.append((ends[0] - ends[1]) / (2 * size))
  return np.array(result)


class MetaGradientTest(test_case.TestCase):
  def setUp(self):
    super().setUp()
    self.random = np.random.default_rng(0)
    self.policy = flat_gaussian.FlatGaussian(
      OBSERVATION, ACTION, hidden_units=(5,), action_scale=1.0
    )
    self.theta = tf.constant(0.4 * self.random.normal(size=self.policy.num_parameters))
    self.pre = self.stage(meta_gradient.tiled(self.theta, self.stage(None)))
    self.posts = {
      form: self.stage(self.adapted(self.theta, form))
      for form in (meta_gradient.LOG_LIKELIHOOD, meta_gradient.RATIO)
    }

  def stage(self, parameters):
    observation = tf.constant(self.random.normal(size=(TASKS, ROWS, OBSERVATION)))
    advantage = self.random.normal(size=(TASKS, ROWS))
    mask = np.ones_like(advantage)
    mask[1, 20:] = 0  # One task has less data.
    if parameters is None:
      return meta_gradient.Stage(observation, None, advantage, mask, None)
    old = self.policy(parameters, observation)
    action = old.mean + tf.exp(old.log_std) * self.random.normal(size=old.mean.shape)
    return meta_gradient.Stage(observation, action, tf.constant(advantage), tf.constant(mask), old)

  def adapted(self, theta, form, stage=None, step_size=STEP):
    stage = self.pre if stage is None else stage
    start = meta_gradient.tiled(theta, stage)
    return meta_gradient.adapted(self.policy, start, stage, step_size=step_size, form=form)

  def promp(self, theta):
    loss, _ = promp_losses.promp_loss(
      self.policy, theta, self.pre, self.posts[meta_gradient.RATIO], **STEP_AND_CLIP
    )
    return tf.reduce_mean(loss)

  def maml(self, theta):
    return [
      tf.reduce_mean(value)
      for value in maml_losses.surrogate_and_kl(
        self.policy, theta, self.pre, self.posts[meta_gradient.LOG_LIKELIHOOD], step_size=STEP
      )
    ]

  @parameterized.parameters('promp', 'maml')
  def test_gradients_go_through_the_inner_step(self, method):
    function = self.promp if method == 'promp' else lambda theta: self.maml(theta)[0]
    # Away from where the data were collected, too, where the ratio of the inner step is not 1.
    for point in (self.theta, self.theta + 0.01):
      found = gradient(function, point).numpy()
      self.assertAllClose(found, central_differences(function, point), rtol=0, atol=1e-8)
      self.assertGreater(np.abs(found).max(), 0.01)

  def test_first_order_is_something_else(self):
    def first_order(theta):
      start = meta_gradient.tiled(theta, self.pre)
      step = tf.stop_gradient(self.adapted(theta, meta_gradient.LOG_LIKELIHOOD) - start)
      post = self.posts[meta_gradient.LOG_LIKELIHOOD]
      ratio = meta_gradient.ratio(self.policy(start + step, post.observation), post)
      return -tf.reduce_mean(meta_gradient.task_means(ratio * post.advantage, post.mask))

    exact = gradient(lambda theta: self.maml(theta)[0], self.theta)
    self.assertGreater(np.abs(exact - gradient(first_order, self.theta)).max(), 1e-3)

  def test_both_forms_step_alike_and_differentiate_apart(self):
    forms = (meta_gradient.LOG_LIKELIHOOD, meta_gradient.RATIO)
    steps = [self.adapted(self.theta, form) for form in forms]
    self.assertAllClose(*steps, rtol=0, atol=1e-12)
    post = self.posts[meta_gradient.RATIO]

    def value(theta, form):
      return tf.reduce_mean(
        meta_gradient.ratio(self.policy(self.adapted(theta, form), post.observation), post)
        * post.advantage
      )

    gradients = [gradient(lambda t, f=f: value(t, f), self.theta).numpy() for f in forms]
    self.assertGreater(np.abs(gradients[0] - gradients[1]).max(), 1e-3)

  def test_a_task_adapts_alone(self):
    order = [2, 0, 3, 1]
    permuted = tf.nest.map_structure(lambda values: tf.gather(values, order), self.pre)
    everybody = self.adapted(self.theta, meta_gradient.RATIO).numpy()
    self.assertAllClose(
      self.adapted(self.theta, meta_gradient.RATIO, permuted), everybody[order], atol=1e-12
    )
    alone = tf.nest.map_structure(lambda values: values[2:3], self.pre)
    self.assertAllClose(
      self.adapted(self.theta, meta_gradient.RATIO, alone)[0], everybody[2], atol=1e-12
    )

  def test_nothing_to_learn_leaves_the_parameters(self):
    idle = self.pre._replace(advantage=tf.zeros_like(self.pre.advantage))
    for found in (
      self.adapted(self.theta, meta_gradient.RATIO, idle),
      self.adapted(self.theta, meta_gradient.RATIO, step_size=0.0),
    ):
      self.assertAllEqual(found, meta_gradient.tiled(self.theta, self.pre))

  def test_greedy_exploration_teaches_nothing(self):
    rows = self.random.normal(size=(TASKS, ROWS))
    advantage = tf.constant(rows - rows.mean(axis=1, keepdims=True))
    greedy = self.pre._replace(
      action=self.pre.old.mean, advantage=advantage, mask=tf.ones_like(advantage)
    )
    found = self.adapted(self.theta, meta_gradient.LOG_LIKELIHOOD, greedy)
    self.assertAllClose(found, meta_gradient.tiled(self.theta, self.pre), rtol=0, atol=1e-12)

  def test_curvature_is_the_hessian_of_the_kl(self):
    with tf.GradientTape() as outer:
      outer.watch(self.theta)
      first = gradient(lambda theta: self.maml(theta)[1], self.theta)
    hessian = outer.jacobian(first, self.theta).numpy()
    self.assertLess(np.abs(first).max(), 1e-10)
    vector = tf.constant(self.random.normal(size=len(hessian)))
    found = maml_losses.curvature_product(
      self.policy,
      self.theta,
      vector,
      self.pre,
      self.posts[meta_gradient.LOG_LIKELIHOOD],
      step_size=STEP,
    )
    self.assertAllClose(found / TASKS, hessian @ vector.numpy(), rtol=0, atol=1e-10)
    self.assertGreater(np.linalg.eigvalsh(hessian).min(), -1e-10)

  def test_a_step_stays_in_the_trust_region(self):
    def product(vector):
      post = self.posts[meta_gradient.LOG_LIKELIHOOD]
      image = maml_losses.curvature_product(
        self.policy, self.theta, tf.constant(vector), self.pre, post, step_size=STEP
      )
      return image.numpy() / TASKS + 1e-5 * vector

    def evaluate(theta):
      return tuple(float(value) for value in self.maml(tf.constant(theta)))

    ascent = gradient(lambda theta: self.maml(theta)[0], self.theta).numpy()
    direction = trust_region.conjugate_gradient(product, ascent, iterations=10)
    full = trust_region.full_step(product, direction, max_kl=0.01)
    self.assertAlmostEqual(0.5 * full @ product(full), 0.01, delta=1e-5)
    start = self.theta.numpy()
    step = trust_region.line_search(evaluate, start, full, max_kl=0.01, backtrack=0.8, max_tries=15)
    self.assertTrue(step.accepted)
    self.assertLess(step.loss, evaluate(start)[0])
    self.assertBetween(step.kl, 1e-4, 0.01)
    self.assertEqual(evaluate(step.parameters), (step.loss, step.kl))


if __name__ == '__main__':
  absltest.main()
