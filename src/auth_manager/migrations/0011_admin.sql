-- What administrators look accounts up by: the beginning of an address or a username, whatever the collation.
CREATE INDEX accounts_by_email_prefix ON accounts (email_normalized text_pattern_ops);
CREATE INDEX accounts_by_username_prefix ON accounts (username_normalized text_pattern_ops);
CREATE INDEX accounts_disabled ON accounts (id) WHERE disabled_at IS NOT NULL;

-- Whether an administrator may still act for an account's owner: asked with each request of such a session, so
-- that it ends with the administrator's account, permission, or rank above the owner.
CREATE FUNCTION impersonation_stands(p_impersonator_id uuid, p_account_id uuid) RETURNS boolean
LANGUAGE sql STABLE AS $$
    SELECT EXISTS (SELECT FROM accounts WHERE id = p_impersonator_id AND disabled_at IS NULL)
       AND permits(permissions_of(p_impersonator_id), '{users:impersonate}')
       AND permits(permissions_of(p_impersonator_id), permissions_of(p_account_id))
$$;
