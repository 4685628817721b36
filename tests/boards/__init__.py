"""Boards made of Python, for tests."""
