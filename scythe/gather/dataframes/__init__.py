"""The dataframes of a run: what the frames of all inputs come to together."""
