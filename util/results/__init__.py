"""Scores, tables, pictures and report pages."""
