"""What the service asks of the world besides runtimes: users and groups, object stores, a tracking server over HTTP."""
