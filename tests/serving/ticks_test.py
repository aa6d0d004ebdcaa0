import json
import subprocess
from unittest import mock

import grpc
from absl import app, flags
from absl.testing import absltest, parameterized

from pearl_tf.testing import scripted_server, test_case
from serving import client, ticks
from serving.server import __main__ as server_main
from tests.serving.support import in_process


class TicksTest(test_case.TestCase):
  def serve(self):
    return self.enter_context(scripted_server.ScriptedServer({7: scripted_server.ToyModel(11)}))

  def test_a_tick_without_a_fresh_action_is_missed(self):
    server = self.serve()
    model = self.enter_context(client.connect(server.address))
    session = self.enter_context(client.Session(model, on_failure='hold', max_age_seconds=3600.0))
    session.begin_episode(timeout=60.0)
    # Of 60 s, of which no machine needs so much: what is missed is what fails.
    server.fail_next(grpc.StatusCode.INTERNAL, times=2, signature='act')
    with absltest.mock.patch.object(ticks.time, 'sleep'):
      found = ticks.act(session, 2, phase='x', number=5, hz=1 / 60)
    self.assertEqual((found.phase, found.ticks, found.missed), ('x', 5, 2))
    self.assertEqual(found.versions, [7])
    self.assertLessEqual(found.median_ms, found.worst_ms)

  def test_everything_happens_to_the_server(self):
    server, events = self.serve(), mock.Mock()
    records = list(
      ticks.measure(server.address, events, seconds=0.1, clients=2, client_hz=10.0, hz=50.0)
    )
    self.assertEqual(
      [record.phase for record in records if record.phase.strip() != 'then'],
      ['alone', '2 others', '2 others, reload', 'reload', 'stalled 0.5 s', 'restart'],
    )
    self.assertTrue(all(record.ticks >= record.missed for record in records))
    names = [name for name, *_ in events.method_calls]
    self.assertEqual(names, ['reload', 'reload', 'stall', 'restart'])

  def test_its_server_is_started_and_started_again(self):
    export, folder = self.temp_dir(), self.temp_dir()
    for version in ('2', '10'):
      (export / 'pearl' / version).mkdir(parents=True)
      (export / 'pearl' / version / 'name').write_text(version)
    with (
      mock.patch.object(subprocess, 'Popen') as started,
      mock.patch.object(client, 'connect') as connected,
    ):
      server = ticks.Server(export, folder)
      server.restart()
      server.end()
    self.assertEqual((folder / 'pearl' / '1' / 'name').read_text(), '10')
    self.assertEqual(started.call_count, 2)
    self.assertEqual(started.return_value.terminate.call_count, 2)
    self.assertEqual(connected.call_args.args[0], server.address)
    values = flags.FlagValues()
    server_main.define_flags(values)
    values(started.call_args.args[0][2:])
    settings = server_main.options_from_flags(values)
    self.assertEqual(settings.model_base_path, str(folder / 'pearl'))
    self.assertEndsWith(server.address, f':{settings.port}')

  def run_main(self, *arguments, **values):
    values = {'export_dir': None, 'server': None, 'seconds': 0.1, 'clients': 1} | values
    return in_process.run_main(ticks, *arguments, **values)

  def test_the_program_prints_a_table_and_its_records(self):
    printed = self.run_main(server=self.serve().address)
    records = [json.loads(line) for line in printed.splitlines() if line.startswith('{')]
    self.assertEqual([record['phase'] for record in records], ['alone', '1 others'])
    self.assertIn('ticks of 20 ms', printed)

  @parameterized.parameters(
    {}, {'export_dir': 'a', 'server': 'b'}, {'server': 'b', 'arguments': ('x',)}
  )
  def test_mistakes_are_explained(self, arguments=(), **values):
    with self.assertRaises(app.UsageError):
      self.run_main(*arguments, **values)


if __name__ == '__main__':
  absltest.main()
