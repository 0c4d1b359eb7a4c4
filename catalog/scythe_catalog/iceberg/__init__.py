"""Iceberg tables: their catalog, data files, types, and what is read of them."""
