"""What a model costs and whether it is right."""
