"""What administrators do to one account, and its sessions."""
