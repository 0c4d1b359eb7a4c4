"""What the code of an experiment is made of: modules of the project, cells, values, and how they were when they were loaded."""
