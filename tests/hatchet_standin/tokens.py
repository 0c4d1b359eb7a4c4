"""Tokens that a stand-in accepts. The key is no secret: the engine lives for one test on the loopback address."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import time

from .model import TENANT

KEY = b"hatchet-standin"


def mint(rest_url: str, grpc_address: str, seconds: float = 3600.0) -> str:
    """A token for this engine that is good for the given seconds."""
    claims = {
        "sub": TENANT,
        "server_url": rest_url,
        "grpc_broadcast_address": grpc_address,
        "exp": time.time() + seconds,
    }
    body = f"{_encode(json.dumps({'alg': 'HS256'}).encode())}.{_encode(json.dumps(claims).encode())}"
    return f"{body}.{_sign(body)}"


def valid(token: str) -> bool:
    """Whether the signature is ours and the token has not expired."""
    body, _, signature = token.rpartition(".")
    if not hmac.compare_digest(signature, _sign(body)):
        return False
    claims = body.partition(".")[2]
    return json.loads(base64.urlsafe_b64decode(claims + "=" * (-len(claims) % 4)))["exp"] > time.time()


def bearer(header: str | None) -> bool:
    """Whether an `Authorization` header carries a valid token."""
    scheme, _, token = (header or "").partition(" ")
    return scheme.lower() == "bearer" and valid(token)


def _sign(body: str) -> str:
    return _encode(hmac.new(KEY, body.encode(), hashlib.sha256).digest())


def _encode(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()
