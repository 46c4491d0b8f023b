"""What `make local` runs on: an embedded PostgreSQL and generated keys. Never in the image."""
