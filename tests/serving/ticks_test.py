import json
import subprocess
import sys

import grpc
from absl.testing import absltest

from pearl_tf.testing import exported_model, scripted_server, test_case
from serving import client, ticks


class TicksTest(test_case.TestCase):
  def session(self, server):
    model = self.enter_context(client.connect(server.address))
    session = self.enter_context(client.Session(model, on_failure='hold', max_age_seconds=3600.0))
    session.begin_episode(timeout=60.0)
    return session

  def test_a_tick_without_a_fresh_action_is_missed(self):
    server = self.enter_context(scripted_server.ScriptedServer({7: scripted_server.ToyModel(11)}))
    session = self.session(server)
    # Of 60 s, of which no machine needs so much: what is missed is what fails.
    server.fail_next(grpc.StatusCode.INTERNAL, times=2, signature='act')
    with absltest.mock.patch.object(ticks.time, 'sleep'):
      found = ticks.act(session, 2, phase='x', number=5, hz=1 / 60)
    self.assertEqual((found.phase, found.ticks, found.missed), ('x', 5, 2))
    self.assertEqual(found.versions, [7])
    self.assertLessEqual(found.median_ms, found.worst_ms)

  def test_the_program(self):
    directory = exported_model.export_small(self.temp_dir())
    command = [sys.executable, '-m', 'serving.ticks', f'--export_dir={directory}']
    result = subprocess.run(
      [*command, '--seconds=0.2', '--clients=2'], capture_output=True, text=True
    )
    self.assertEqual(result.returncode, 0, result.stderr)
    records = [json.loads(line) for line in result.stdout.splitlines() if line.startswith('{')]
    self.assertEqual(
      [record['phase'] for record in records if record['phase'].strip() != 'then'],
      ['alone', '2 others', '2 others, reload', 'reload', 'stalled 0.5 s', 'restart'],
    )
    self.assertTrue(all(record['ticks'] >= record['missed'] for record in records))
    self.assertIn('ticks of 20 ms', result.stdout)


if __name__ == '__main__':
  absltest.main()
