"""Second factors: one-time passwords, recovery codes, passkeys, and the devices that need none of them."""

SINGLE_FACTOR_ACR = "aal1"
MULTI_FACTOR_ACR = "aal2"
"""NIST SP 800-63B authentication assurance levels."""
