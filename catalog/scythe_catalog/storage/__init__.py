"""Bytes under a root: a folder of a disk, or a bucket."""
