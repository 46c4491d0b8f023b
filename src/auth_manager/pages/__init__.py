"""Pages for the links in mails, and for a team without a front end; a script serves passkeys alone."""
