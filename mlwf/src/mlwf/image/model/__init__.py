"""The model package: where it comes from, unpacked as a stranger's, and what it says that it needs."""
