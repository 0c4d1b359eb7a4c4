"""What lies in a run's folder, and how it is found: keys, plan, manifest, attempts, versions, tables. Runs no input."""
