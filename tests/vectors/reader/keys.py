"""Identities, key entries and what is derived from them (FORMAT.md §5).

HPKE, AES-GCM, HKDF and the curves are `cryptography`'s; only X-Wing's expansion of its seed is written out here,
from the draft: SHAKE-256 to 96 bytes, 64 for ML-KEM-768 and 32 for X25519.
"""

from base64 import b64decode
from hashlib import sha256, shake_256
from hmac import compare_digest, digest as hmac_digest
import struct

from cryptography.exceptions import InvalidSignature, InvalidTag
from cryptography.hazmat.primitives import hpke
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, mlkem, x25519
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand

LABEL = b"harborseal/v1/"
XWING, P256 = 0x647A, 0x0010
KDF, AEAD = 1, 2
# One ratchet step is two hashes. A chain_seq is anybody's number: past this many steps a trial is cheaper.
MAX_RATCHET = 1 << 16


class BadKey(Exception):
    """An identity or public key that is none."""


def node_id(node_key):
    return sha256(LABEL + b"node" + node_key).digest()[:16]


def signed_by(node_key, signature, label, message):
    """Whether the node signed this. A key that is no point of the curve signs nothing."""
    try:
        ed25519.Ed25519PublicKey.from_public_bytes(node_key).verify(signature, LABEL + label + message)
    except (InvalidSignature, ValueError):
        return False
    return True


def expand(key, label, info=b""):
    return HKDFExpand(SHA256(), 32, LABEL + label + info).derive(key)


def extract(salt, secret):
    """HKDF-Extract (RFC 5869 §2.2)."""
    return hmac_digest(salt, secret, "sha256")


def hint(h, segment_id):
    return hmac_digest(h, segment_id, "sha256")[:16]


def next_h(h):
    return expand(h, b"hint")


class Identity:
    """Who opens: one KEM secret. The signing half of an identity plays no part in a segment."""

    def __init__(self, text):
        raw = _checked(text.strip(), "hss1")
        if len(raw) != 4 + 32 + 32:
            raise BadKey("an identity has 72 bytes")
        (self.kem, _) = struct.unpack_from("<HH", raw)
        secret = raw[4:36]
        try:
            self._private = _xwing_private(secret) if self.kem == XWING else _p256_private(secret, self.kem)
        except ValueError as error:
            raise BadKey(f"the secret is none of its KEM: {error}") from None
        kem = {XWING: hpke.KEM.MLKEM768_X25519, P256: hpke.KEM.P256}[self.kem]
        self._suite = hpke.Suite(kem, hpke.KDF.HKDF_SHA256, hpke.AEAD.AES_256_GCM)

    @classmethod
    def from_file(cls, path):
        with open(path, encoding="utf-8") as file:
            lines = [line.strip() for line in file]
        secrets = [line for line in lines if line and not line.startswith("#")]
        if len(secrets) != 1:
            raise BadKey("an identity file has one line with the secret")
        return cls(secrets[0])

    def open_entry(self, entry, origin_node, origin_segment):
        """The plaintext of a KEY entry, or None if it is not for this identity (§5.2)."""
        if (entry.kem, entry.kdf, entry.aead) != (self.kem, KDF, AEAD):
            return None
        try:
            return self._suite.decrypt(entry.enc + entry.ct, self._private,
                                       info=_info(entry, origin_node, origin_segment))
        except (InvalidTag, ValueError):
            return None


def _info(entry, origin_node, origin_segment):
    return (
        LABEL + b"key"
        + struct.pack("<HHH", entry.kem, entry.kdf, entry.aead) + origin_node + origin_segment
        + struct.pack("<IBBB", entry.slot, entry.scope, entry.i, entry.n) + entry.stream_id + entry.hint
    )


def _checked(text, prefix):
    """The bytes of a key's text, its checksum verified and taken off (§5)."""
    if not text.startswith(prefix):
        raise BadKey(f"it does not begin with {prefix}")
    body = text[len(prefix):]
    try:
        raw = b64decode(body + "=" * (-len(body) % 4), altchars=b"-_", validate=True)
    except ValueError as error:
        raise BadKey(f"no base64url: {error}") from None
    if len(raw) < 8 or sha256(prefix.encode() + raw[:-4]).digest()[:4] != raw[-4:]:
        raise BadKey("its checksum does not fit")
    return raw[:-4]


def _xwing_private(seed):
    expanded = shake_256(seed).digest(96)
    return hpke.MLKEM768X25519PrivateKey(
        mlkem.MLKEM768PrivateKey.from_seed_bytes(expanded[:64]),
        x25519.X25519PrivateKey.from_private_bytes(expanded[64:]),
    )


def _p256_private(scalar, kem):
    if kem != P256:
        raise BadKey(f"unknown KEM {kem:#06x}")
    return ec.derive_private_key(int.from_bytes(scalar, "big"), ec.SECP256R1())


def stream_key(segment_id, stream_id, secret, e=None):
    """K_st from S, and from E where the slot is erasable (§5, §5.6)."""
    return expand(extract(segment_id, secret + (e or b"")), b"stream", stream_id)


def granted_key(masked, stream_id, e=None):
    """K_st from a scope 1 entry (§5.6, §5.7)."""
    if e is None:
        return masked
    mask = expand(e, b"erase-grant", stream_id)
    return bytes(a ^ b for a, b in zip(masked, mask))


def commits(k_st, commitment):
    """Whether C is this key's (§5.3)."""
    return compare_digest(expand(k_st, b"commit"), commitment)


def open_block(k_st, block):
    """The plaintext of a STREAM or CHUNK, or None if it does not authenticate (§5.5)."""
    skip = 160 if block.hashed else 128
    nonce = bytes([block.type, 0, 0, 0]) + block.block_no.to_bytes(8, "big")
    aad = block.raw[:96] + block.raw[skip : block.header_len]
    try:
        return AESGCM(expand(k_st, b"aead")).decrypt(nonce, block.body + block.tag, aad)
    except InvalidTag:
        return None
