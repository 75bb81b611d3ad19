"""The base image: named, pinned, fetched, and converted once for each content."""
