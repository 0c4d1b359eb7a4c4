"""Typed tables for pydantic models in an Iceberg catalog that is a folder.

Knows pydantic, Arrow, Iceberg and Polars; knows nothing of experiments, runs or clusters.
"""
