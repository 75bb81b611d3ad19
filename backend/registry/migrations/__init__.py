"""The registry's forms, oldest first. Run from code only (``Registry.migrate``)."""
