"""A stand-in for the Hatchet engine, so that tests drive the real Hatchet SDK without Postgres and Docker.

It keeps what the real engine promises to a client and to a worker: slots, retries, time limits, labels, child
keys, durable replay, worker loss, cancellation and the message limit. It never persists anything, and it knows
one tenant only. Where it is stricter or quicker than the engine, the module concerned says so.
"""

from .child import StandinEngine

__all__ = ["StandinEngine"]
