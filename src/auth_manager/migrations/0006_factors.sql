-- When an account last gained or lost a factor: a sign-in that was decided before that is decided anew.
-- NULL: it never had one.
ALTER TABLE accounts ADD COLUMN factors_changed_at timestamptz;

-- Time-based one-time passwords (RFC 6238): one that counts, and one that waits to be confirmed.
CREATE TABLE totp_factors (
    id uuid NOT NULL,
    account_id uuid NOT NULL,
    sealed_secret bytea NOT NULL,   -- sealed_values.py
    created_at timestamptz NOT NULL,
    confirmed_at timestamptz,
    last_step bigint,               -- the youngest time step that was used: none counts twice
    last_used_at timestamptz,
    last_use_id uuid,               -- which use: sent twice by a lost connection, it counts once
    CONSTRAINT totp_factors_pkey PRIMARY KEY (id),
    CONSTRAINT totp_factors_account_fkey FOREIGN KEY (account_id) REFERENCES accounts (id) ON DELETE CASCADE
);
CREATE UNIQUE INDEX totp_factors_confirmed_key ON totp_factors (account_id) WHERE confirmed_at IS NOT NULL;
CREATE UNIQUE INDEX totp_factors_pending_key ON totp_factors (account_id) WHERE confirmed_at IS NULL;

-- Recovery codes: Argon2id, with one salt for the codes that were made together, so that one hash finds one.
CREATE TABLE recovery_codes (
    account_id uuid NOT NULL,
    code_hash bytea NOT NULL,
    salt bytea NOT NULL,
    created_at timestamptz NOT NULL,
    used_at timestamptz,
    used_by uuid,                   -- which use: sent twice by a lost connection, it counts once
    CONSTRAINT recovery_codes_pkey PRIMARY KEY (account_id, code_hash),
    CONSTRAINT recovery_codes_account_fkey FOREIGN KEY (account_id) REFERENCES accounts (id) ON DELETE CASCADE,
    CONSTRAINT recovery_codes_use_both CHECK ((used_at IS NULL) = (used_by IS NULL))
);

-- Passkeys: WebAuthn credentials (W3C Web Authentication Level 3).
CREATE TABLE passkeys (
    id uuid NOT NULL,
    account_id uuid NOT NULL,
    credential_id bytea NOT NULL,
    public_key bytea NOT NULL,      -- COSE (RFC 9052)
    sign_count bigint NOT NULL,
    name text NOT NULL,
    transports text[] NOT NULL,
    aaguid uuid NOT NULL,
    attestation_format text NOT NULL,
    user_verified boolean NOT NULL, -- at registration
    backup_eligible boolean NOT NULL, -- never changes
    backed_up boolean NOT NULL,
    created_at timestamptz NOT NULL,
    last_used_at timestamptz,
    CONSTRAINT passkeys_pkey PRIMARY KEY (id),
    CONSTRAINT passkeys_credential_key UNIQUE (credential_id),
    CONSTRAINT passkeys_account_fkey FOREIGN KEY (account_id) REFERENCES accounts (id) ON DELETE CASCADE,
    CONSTRAINT passkeys_sign_count_range CHECK (sign_count BETWEEN 0 AND 4294967295)
);
CREATE INDEX passkeys_by_account ON passkeys (account_id, id);

-- Devices that need no second factor for a time. Their tokens are HMACs over the id. The trust ends with the
-- password that it was given under.
CREATE TABLE trusted_devices (
    id uuid NOT NULL,
    account_id uuid NOT NULL,
    password_changed_at timestamptz NOT NULL,
    created_at timestamptz NOT NULL,
    last_used_at timestamptz NOT NULL,
    expires_at timestamptz NOT NULL,
    address inet,
    user_agent text NOT NULL DEFAULT '',
    CONSTRAINT trusted_devices_pkey PRIMARY KEY (id),
    CONSTRAINT trusted_devices_account_fkey FOREIGN KEY (account_id) REFERENCES accounts (id) ON DELETE CASCADE
);
CREATE INDEX trusted_devices_by_account ON trusted_devices (account_id, id);
CREATE INDEX trusted_devices_by_expiry ON trusted_devices (expires_at);

-- What is open for one purpose of one session or sign-in, as challenges of passkeys are: there are few of each.
CREATE INDEX one_time_secrets_by_context ON one_time_secrets ((details ->> 'context'))
    WHERE details ->> 'context' IS NOT NULL;

-- Reserve one guess of a second factor: against the account's run of failures, and where the account has factors
-- (a key is given) against the run of those. What the second one refuses does not count against the first.
-- Returns both counts, and when another attempt may come (NULL: this one goes ahead).
CREATE FUNCTION reserve_factor_attempt(
    p_account_key text, p_factor_key text, p_now timestamptz, p_max_attempts integer, p_free_attempts integer,
    p_delay interval, p_delay_maximum interval,
    OUT reserved integer, OUT factors_reserved integer, OUT retry_at timestamptz
) LANGUAGE plpgsql AS $$
DECLARE
    attempt record;
BEGIN
    SELECT * INTO attempt FROM reserve_attempt(
        p_account_key, p_now, p_max_attempts, NULL, p_free_attempts, p_delay, p_delay_maximum);
    reserved := attempt.reserved;
    retry_at := attempt.retry_at;
    factors_reserved := 0;
    IF retry_at IS NOT NULL OR p_factor_key IS NULL THEN
        RETURN;
    END IF;
    SELECT * INTO attempt FROM reserve_attempt(p_factor_key, p_now, p_max_attempts, NULL, NULL, NULL, NULL);
    factors_reserved := attempt.reserved;
    retry_at := attempt.retry_at;
    IF retry_at IS NOT NULL THEN
        UPDATE rate_limits SET count = GREATEST(count - 1, 0), blocked_until = NULL WHERE key = p_account_key;
    END IF;
END $$;

-- What an account can be asked for besides its first factor. Recovery codes alone are none: they stand in for
-- a factor that was lost.
CREATE FUNCTION factors_of(p_account_id uuid) RETURNS text[] LANGUAGE sql STABLE AS $$
    SELECT CASE
        WHEN cardinality(factors) > 0
         AND EXISTS (SELECT FROM recovery_codes WHERE account_id = p_account_id AND used_at IS NULL)
        THEN factors || 'recovery_code'::text ELSE factors END
    FROM (
        SELECT array_remove(ARRAY[
            CASE WHEN EXISTS (SELECT FROM totp_factors
                              WHERE account_id = p_account_id AND confirmed_at IS NOT NULL) THEN 'totp' END,
            CASE WHEN EXISTS (SELECT FROM passkeys WHERE account_id = p_account_id) THEN 'passkey' END
        ], NULL) AS factors
    ) AS enrolled
$$;
