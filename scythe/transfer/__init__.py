"""Runs carried from one root to another: downloaded, only the files of the rows that are asked for, or uploaded whole."""
