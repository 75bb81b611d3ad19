"""The database: what was wished and what became of it; secrets in it are encrypted."""
