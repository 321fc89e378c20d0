"""Write the tables of all pages anew."""

from pathlib import Path

from lead_core.published.pages import write_pages

write_pages(Path(__file__).parents[2])
