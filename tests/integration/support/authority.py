# SPDX-License-Identifier: BSD-2-Clause
"""A certificate authority of a test, and certificates from it."""

import datetime
import ipaddress

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

NOW = datetime.datetime.now(datetime.timezone.utc)


class Authority:
    def __init__(self, name="ca"):
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        self.certificate = self._sign(self.name, self.key, [x509.BasicConstraints(True, None)], 1)

    def _sign(self, subject, key, extensions, days):
        builder = (x509.CertificateBuilder().subject_name(subject).issuer_name(self.name)
                   .public_key(key.public_key()).serial_number(x509.random_serial_number())
                   .not_valid_before(NOW - datetime.timedelta(days=2))
                   .not_valid_after(NOW + datetime.timedelta(days=days)))
        for extension in extensions:
            builder = builder.add_extension(extension, critical=False)
        return builder.sign(self.key, hashes.SHA256())

    def issue(self, path, cn=None, uri=None, days=1):
        """Writes path.crt and path.key; returns the certificate's SHA-256."""
        key = ec.generate_private_key(ec.SECP256R1())
        names = [x509.IPAddress(ipaddress.ip_address("127.0.0.1"))] + ([x509.UniformResourceIdentifier(uri)] if uri else [])
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, cn)] if cn else [])
        certificate = self._sign(subject, key, [x509.SubjectAlternativeName(names)], days)
        path.with_suffix(".crt").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        path.with_suffix(".key").write_bytes(key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()))
        return certificate.fingerprint(hashes.SHA256()).hex()

    def write(self, path):
        path.write_bytes(self.certificate.public_bytes(serialization.Encoding.PEM))
