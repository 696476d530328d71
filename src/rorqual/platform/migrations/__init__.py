"""Schema steps, applied in order by `rorqual.platform.migrate`. A released step never changes."""
