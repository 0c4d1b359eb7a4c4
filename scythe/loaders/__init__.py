"""What a training loop draws on."""
