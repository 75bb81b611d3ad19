"""Everything in one folder while all runs, and put back on an empty machine."""
