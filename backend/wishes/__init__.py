"""What people ask for: a change is one transaction that waits for no box."""
