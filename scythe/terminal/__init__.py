"""What a person sees while a run goes on: a bar, lines above it, sentences."""
