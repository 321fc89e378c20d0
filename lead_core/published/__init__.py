"""The tables of README.md and docs/, from the files under `results/`; a test keeps the pages current.

``python -m lead_core.published`` writes them anew.
"""
