"""The export of one model version: found through the registry, fetched in parallel, packed while it arrives."""
