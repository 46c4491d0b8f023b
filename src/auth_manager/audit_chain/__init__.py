"""The audit trail as a chain of hashes (docs/decisions/0020-audit-chain.md).

`rows` says what a hash covers, `chaining` extends the chain, `checkpoints` signs where it stands,
`verification` walks it and names the first event that is not as it was.
"""
