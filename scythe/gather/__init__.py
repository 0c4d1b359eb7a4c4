"""From the rows of chunks to the tables of a finished run: parts, their merge, and what the catalog shows."""
