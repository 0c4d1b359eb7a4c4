"""What a worker of a cluster serves: leaves, scatter nodes, included tasks."""

from scythe.engines.hatchet.sdk import load

load()
