"""Selectors x seeds: what a cell of a comparison is, what is kept of it, and the table of them all."""
