import asyncio
import gc
import weakref

from absl.testing import absltest

from pearl_tf.testing import test_case
from serving import errors
from serving.model_server import loader
from tests.serving.support import toy_model


class LoaderTest(test_case.TestCase):
  def test_frees_session_and_graph(self):
    path = toy_model.save(self.temp_dir() / '1')

    async def scenario():
      tested = loader.Loader()
      model = await tested.load('toy', 1, path)
      session = weakref.ref(model._session)
      graph = weakref.ref(model._session._graph)
      await tested.free(model)
      tested.close()
      return session, graph, model

    session, graph, model = asyncio.run(scenario())
    gc.collect()
    self.assertIsNone(session())
    self.assertIsNone(graph())
    self.assertTrue(model.close())

  def test_waits_for_borrowers(self):
    path = toy_model.save(self.temp_dir() / '1')

    async def scenario():
      tested = loader.Loader()
      model = await tested.load('toy', 1, path)
      with model:
        freeing = asyncio.create_task(tested.free(model))
        await asyncio.sleep(0.05)
        self.assertFalse(freeing.done())
      await asyncio.wait_for(freeing, 20)
      tested.close()

    asyncio.run(scenario())

  def test_reports_each_attempt(self):
    path = toy_model.save(self.temp_dir() / '1')
    seen = []

    async def scenario():
      tested = loader.Loader(on_load=lambda *attempt: seen.append(attempt))
      await tested.free(await tested.load('toy', 1, path))
      with self.assertRaises(errors.ServingError):
        await tested.load('toy', 2, path / 'nowhere')
      tested.close()

    asyncio.run(scenario())
    (good, bad) = seen
    self.assertEqual((good[:2], good[3]), (('toy', 1), None))
    self.assertEqual((bad[:2], bad[3].number), (('toy', 2), 5))
    self.assertGreater(good[2], 0)


if __name__ == '__main__':
  absltest.main()
