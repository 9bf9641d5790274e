"""4/4  Texts -> documents: what was read becomes searchable."""
