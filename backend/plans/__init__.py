"""What each kind of operation does, step by step (docs/explanation/service.md)."""
