"""LEAD: iterative data selection for LLM instruction tuning, without extra inference."""

__version__ = "0.1.0"
