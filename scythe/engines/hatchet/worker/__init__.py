"""What a worker of a cluster serves: leaves, scatter nodes, included tasks."""
