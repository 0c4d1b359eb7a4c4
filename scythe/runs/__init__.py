"""Runs that are there: looked at, listed, resumed, deleted, and a catalog that is made anew from them."""
