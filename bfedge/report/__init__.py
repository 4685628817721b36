"""A report of a model as one HTML file."""
