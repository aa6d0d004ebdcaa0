"""Certificates for tests of TLS: an authority, and what it signs."""

import dataclasses
import datetime
import ipaddress
import pathlib

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509 import oid

_DAY = datetime.timedelta(days=1)


@dataclasses.dataclass(frozen=True)
class Pair:
  """A private key and its certificate, PEM."""

  key: bytes
  certificate: bytes


class Authority:
  """Signs certificates that whoever trusts `certificate` accepts."""

  def __init__(self):
    self._key = ec.generate_private_key(ec.SECP256R1())
    self._name = x509.Name([x509.NameAttribute(oid.NameOID.COMMON_NAME, 'test authority')])
    self._signed = self._sign(self._name, self._key.public_key(), is_authority=True)
    self.certificate = self._signed.public_bytes(serialization.Encoding.PEM)

  def issue(self, name: str) -> Pair:
    """Returns a new key and a certificate for localhost, 127.0.0.1 and ::1."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(oid.NameOID.COMMON_NAME, name)])
    signed = self._sign(subject, key.public_key(), is_authority=False)
    return Pair(
      key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
      ),
      signed.public_bytes(serialization.Encoding.PEM),
    )

  def write(self, folder: pathlib.Path, server: Pair, *, client_verify: bool) -> dict[str, str]:
    """Writes PEM files; returns the options of a server that takes them."""
    files = {'tls_key': server.key, 'tls_cert': server.certificate}
    if client_verify:
      files['tls_client_ca'] = self.certificate
    for name, content in files.items():
      (folder / name).write_bytes(content)
    return {name: str(folder / name) for name in files}

  def _sign(self, subject: x509.Name, public_key, *, is_authority: bool) -> x509.Certificate:
    now = datetime.datetime.now(datetime.UTC)
    names = x509.SubjectAlternativeName(
      [
        x509.DNSName('localhost'),
        x509.IPAddress(ipaddress.ip_address('127.0.0.1')),
        x509.IPAddress(ipaddress.ip_address('::1')),
      ]
    )
    return (
      x509.CertificateBuilder()
      .subject_name(subject)
      .issuer_name(self._name)
      .public_key(public_key)
      .serial_number(x509.random_serial_number())
      .not_valid_before(now - _DAY)
      .not_valid_after(now + _DAY)
      .add_extension(x509.BasicConstraints(ca=is_authority, path_length=None), critical=True)
      .add_extension(names, critical=False)
      .sign(self._key, hashes.SHA256())
    )
