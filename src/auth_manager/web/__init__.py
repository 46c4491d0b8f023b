"""What every router shares: request limits, problem+json, bearer tokens."""
