"""Acting for somebody else, for a time, with everybody able to see it (RFC 8693 section 4.1)."""
