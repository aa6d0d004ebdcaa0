import os
import signal
import sys
import time

from absl.testing import absltest

from pearl_tf.launch import group
from pearl_tf.testing import test_case

# What a process does, in a few milliseconds.
WELL = 'pass'
LASTING = 'import time; time.sleep(60)'
LEAVES = 'import sys; print("the reason"); sys.exit({})'


def role(name, script, **end):
  return group.Role(name, [sys.executable, '-S', '-c', script], **end)


class GroupTest(test_case.TestCase):
  def setUp(self):
    super().setUp()
    self.said = []
    self.logs = self.temp_dir()

  def make(self, *roles):
    return group.Group(roles, self.logs, say=self.said.append)

  def run_until(self, members, condition):
    deadline = time.monotonic() + 60
    return members.run(
      is_stopping=lambda: condition() or time.monotonic() > deadline, tick=lambda: None
    )

  def test_it_ends_when_the_work_is_done(self):
    # In the order of the list, so that what others need ends last.
    order = self.logs / 'order'
    notes = (
      'import signal, sys, time; '
      'signal.signal(signal.SIGTERM, lambda *_: (open({!r}, "a").write({!r}), sys.exit(0))); '
      'open({!r}, "w"); time.sleep(60)'
    )
    ready = [self.logs / f'ready-{name}' for name in 'ab']
    waits = (
      f'import os, time\nwhile not all(map(os.path.exists, {[*map(str, ready)]})): time.sleep(0.01)'
    )
    members = self.make(
      role('a', notes.format(str(order), 'a', str(ready[0]))),
      role('work', waits, is_awaited=True),
      role('b', notes.format(str(order), 'b', str(ready[1]))),
    )
    self.assertTrue(self.run_until(members, lambda: False))
    self.assertEqual(order.read_text(), 'ab')
    self.assertEqual(self.said, [])

  def test_what_dies_is_started_again(self):
    members = self.make(role('lasting', LASTING, is_awaited=True))
    former = []

    def is_new():
      pid = members.process_id('lasting')
      if pid and not former:
        former.append(pid)
        os.kill(pid, signal.SIGKILL)
      return bool(pid) and pid != former[0]

    self.assertFalse(self.run_until(members, is_new))
    self.assertEqual(self.said, ['lasting ended with SIGKILL; starts again in 1 s'])
    self.assertEqual(members.state(), {'lasting': (False, 1)})  # All of it was ended.

  def test_what_starting_again_does_not_mend_ends_all(self):
    members = self.make(role('wrong', LEAVES.format(2)), role('lasting', LASTING, is_awaited=True))
    with self.assertRaisesRegex(
      group.GroupError, r'wrong ended with exit code 2, 1 .*\n  the reason'
    ):
      self.run_until(members, lambda: False)
    self.assertFalse(members.state()['lasting'][0])

  def test_others_wait_for_what_is_awaited(self):
    slow = 'import time; time.sleep(0.3)'
    members = self.make(role('slow', slow, is_awaited=True), role('work', WELL, is_awaited=True))
    self.assertTrue(self.run_until(members, lambda: False))
    self.assertEqual(members.state(), {'slow': (True, 0), 'work': (True, 0)})


if __name__ == '__main__':
  absltest.main()
