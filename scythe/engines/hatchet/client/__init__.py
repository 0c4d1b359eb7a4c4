"""What the caller of a run on Hatchet needs: it triggers, waits, looks, cancels."""
