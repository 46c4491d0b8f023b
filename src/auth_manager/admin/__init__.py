"""Administration: what people with the role `admin` do for others."""
