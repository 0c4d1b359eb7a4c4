"""What every message, log line and YAML passes through before anybody reads it; the rules are the catalog's."""

from __future__ import annotations

from scythe_catalog.redaction import redacted

__all__ = ["redacted"]
