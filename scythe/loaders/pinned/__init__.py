"""The runs that a dataset draws on, as they ended when it was made."""
