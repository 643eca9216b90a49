"""Plans compared with what real engines logged; see `page.py` for the page that comes of it."""
