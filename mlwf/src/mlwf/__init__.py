"""Users' tools and the client of the service. Imports nothing else of this project."""
