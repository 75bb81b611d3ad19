"""Publishing an exported package: its form checked, its files uploaded, its access proven."""
