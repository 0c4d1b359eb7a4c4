"""Reuse: the inputs of which earlier runs of a version hold the rows already, and how those come into a new run.

`identity` tells equal inputs, `known` which rows there are, `matching` which known row answers which input, `copied` brings
the rows into the new run, `owners` keeps the runs whose files they name.
"""
