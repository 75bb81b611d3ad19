"""What `aihub check` looks at."""
