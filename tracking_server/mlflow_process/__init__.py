"""MLflow's own process: its environment, its database, its checks, and when it goes to sleep."""
