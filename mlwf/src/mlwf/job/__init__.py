"""What a batch job, or the console where there is no scheduler, does for its user: one request file in, one progress file out."""
