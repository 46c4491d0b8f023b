"""What the service costs: cold start, warm path, server mode, growth. docs/performance.md has the method."""
