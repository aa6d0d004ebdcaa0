"""Keeps gRPC's traffic within this machine away from proxies.

gRPC sends everything to the proxy that `http_proxy` and the like name, what goes to localhost, too,
where no proxy can deliver it. Other addresses go on honouring these variables.
"""

import os

_LOCAL = ('localhost', '127.0.0.1', '::1')
_SPARED = 'no_grpc_proxy'


def spare_local_traffic() -> None:
  """Adds this machine to what gRPC does not send to a proxy, from now on, in children, too.

  Only gRPC reads this variable. Where it is absent gRPC reads `no_proxy`, which it then replaces.
  """
  names = (_SPARED, 'no_proxy', 'NO_PROXY')
  given = next((os.environ[name] for name in names if os.environ.get(name)), '')
  hosts = [host.strip() for host in given.split(',') if host.strip()]
  os.environ[_SPARED] = ','.join(dict.fromkeys([*hosts, *_LOCAL]))
