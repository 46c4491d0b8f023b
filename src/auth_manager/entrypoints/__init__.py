"""Where a process starts: Lambda functions, the uvicorn server, the command line."""
