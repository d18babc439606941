"""The devstack's own certificate authority: it lives as long as the stack, and nothing else trusts it."""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

LIFETIME = timedelta(days=365)


@dataclass(frozen=True)
class KeyPair:
    """Files of a certificate and its private key."""

    certificate: Path
    key: Path


@dataclass(frozen=True)
class Authority:
    """Issues certificates for servers on this machine and for clients of the API server."""

    folder: Path

    @property
    def certificate(self) -> Path:
        """What a client must trust to speak to our servers."""
        return self.folder / "ca.crt"

    @property
    def key(self) -> Path:
        """The authority's private key; the controller manager signs requests with it."""
        return self.folder / "ca.key"

    def create(self) -> Authority:
        """Make the authority's key and certificate unless the folder has them."""
        if self.certificate.exists():
            return self
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        key = ec.generate_private_key(ec.SECP256R1())
        name = _name("trainwright-devstack", None)
        builder = _certificate(name, name, key.public_key())
        builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        builder = builder.add_extension(_usage(signs_certificates=True), critical=True)
        builder = builder.add_extension(
            x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False
        )
        _write_key(self.key, key)
        self.certificate.write_bytes(_pem(builder.sign(key, hashes.SHA256())))
        return self

    def issue(
        self, file: str, *, common_name: str, group: str | None = None, hosts: Sequence[str] = ()
    ) -> KeyPair:
        """Issue a pair for a server (`hosts`: names and addresses) or a client of the API."""
        pair = KeyPair(self.folder / f"{file}.crt", self.folder / f"{file}.key")
        authority = x509.load_pem_x509_certificate(self.certificate.read_bytes())
        signer = serialization.load_pem_private_key(self.key.read_bytes(), password=None)
        if not isinstance(signer, ec.EllipticCurvePrivateKey):
            raise TypeError(f"{self.key} holds no elliptic curve key: remove {self.folder} and start again")
        key = ec.generate_private_key(ec.SECP256R1())
        builder = _certificate(_name(common_name, group), authority.subject, key.public_key())
        builder = builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        builder = builder.add_extension(_usage(signs_certificates=False), critical=True)
        usages = [ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.SERVER_AUTH]
        builder = builder.add_extension(x509.ExtendedKeyUsage(usages), critical=False)
        builder = builder.add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()), critical=False
        )
        if hosts:
            names = x509.SubjectAlternativeName([_host(host) for host in hosts])
            builder = builder.add_extension(names, critical=False)
        _write_key(pair.key, key)
        pair.certificate.write_bytes(_pem(builder.sign(signer, hashes.SHA256())))
        return pair

    def issue_token_key(self) -> KeyPair:
        """Make the key pair that signs service account tokens (RSA, as the API server's default)."""
        pair = KeyPair(self.folder / "tokens.pub", self.folder / "tokens.key")
        key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        _write_key(pair.key, key)
        pair.certificate.write_bytes(
            key.public_key().public_bytes(
                serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
            )
        )
        return pair


def _name(common_name: str, group: str | None) -> x509.Name:
    attributes = [x509.NameAttribute(NameOID.COMMON_NAME, common_name)]
    if group:
        attributes.insert(0, x509.NameAttribute(NameOID.ORGANIZATION_NAME, group))
    return x509.Name(attributes)


def _certificate(
    subject: x509.Name, issuer: x509.Name, public_key: ec.EllipticCurvePublicKey
) -> x509.CertificateBuilder:
    now = datetime.now(UTC)
    return x509.CertificateBuilder(
        subject_name=subject,
        issuer_name=issuer,
        public_key=public_key,
        serial_number=x509.random_serial_number(),
        # Clocks of containers and hosts differ by seconds; a certificate must not come from the future.
        not_valid_before=now - timedelta(minutes=5),
        not_valid_after=now + LIFETIME,
    )


def _usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _host(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def _write_key(path: Path, key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey) -> None:
    path.touch(mode=0o600)
    path.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            # The form that every component of Kubernetes reads.
            serialization.PrivateFormat.TraditionalOpenSSL,
            serialization.NoEncryption(),
        )
    )


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)
