"""How a request reaches the service, and who makes it."""
