"""What keeps this node from working with a tracking server: many small checks, side by side, with one deadline."""
