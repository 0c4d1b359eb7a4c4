"""What users import for their models: file references."""
