"""What makes it so: one look after another at what is wished and what runs."""
