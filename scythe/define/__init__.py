"""What an experiment is: its models, its function, its options and code, and the columns that they come to."""
