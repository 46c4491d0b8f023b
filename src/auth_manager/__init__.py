"""Auth Manager: a serverless auth API that keeps its users in your own PostgreSQL."""

__version__ = "0.1.0"
