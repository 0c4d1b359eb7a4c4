"""Reading results: of one run, of many, as tables or as pairs of models."""
