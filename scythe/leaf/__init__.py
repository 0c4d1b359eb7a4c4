"""One chunk of inputs: each is read, called, and what it returned becomes rows. Knows no engine."""
