"""Design of experiments: inputs of a model drawn from the bounds that its fields declare."""
