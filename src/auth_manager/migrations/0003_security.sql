-- A guard inside a multi-statement round trip: what must hold for the rest to be kept. The caller maps the
-- fact back to the error it stands for (`refused` in database.Connection).
CREATE FUNCTION require(condition boolean, fact text) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    IF condition IS NOT TRUE THEN
        RAISE EXCEPTION USING ERRCODE = 'AM001', MESSAGE = fact;
    END IF;
END $$;

-- Attempt limits. `count` is consecutive failures (no window) or attempts inside a window.
CREATE TABLE rate_limits (
    key text NOT NULL,
    count integer NOT NULL,
    window_ends_at timestamptz,
    blocked_until timestamptz,
    updated_at timestamptz NOT NULL,
    CONSTRAINT rate_limits_pkey PRIMARY KEY (key),
    CONSTRAINT rate_limits_count_positive CHECK (count >= 0)
);
CREATE INDEX rate_limits_by_update ON rate_limits (updated_at);

-- Reserve one attempt before the secret is looked at, so that parallel guesses cannot outrun the counter:
-- the row lock makes them queue. A success gives the reservation back (see rate_limits.py).
--
-- max_attempts: no more than this many reservations per window, or ever when the window is NULL.
-- free_attempts, delay, delay_maximum: from this many on, each reservation blocks the next one for
-- delay * 2^n, delay_maximum at most. NULL free_attempts: no delays.
-- Returns how many are reserved now, and when another attempt may come (NULL: this one goes ahead).
CREATE FUNCTION reserve_attempt(
    p_key text, p_now timestamptz, p_max_attempts integer, p_window interval,
    p_free_attempts integer, p_delay interval, p_delay_maximum interval,
    OUT reserved integer, OUT retry_at timestamptz
) LANGUAGE plpgsql AS $$
DECLARE
    entry rate_limits;
BEGIN
    INSERT INTO rate_limits AS r (key, count, window_ends_at, updated_at)
    VALUES (p_key, 0, p_now + p_window, p_now)
    ON CONFLICT ON CONSTRAINT rate_limits_pkey DO UPDATE SET
        count = CASE WHEN r.window_ends_at <= p_now THEN 0 ELSE r.count END,
        window_ends_at = CASE WHEN r.window_ends_at <= p_now THEN p_now + p_window ELSE r.window_ends_at END,
        updated_at = p_now
    RETURNING * INTO entry;
    reserved := entry.count;
    IF entry.count >= p_max_attempts THEN
        retry_at := COALESCE(entry.window_ends_at, p_now + interval '1 day');
    ELSIF entry.blocked_until > p_now THEN
        retry_at := entry.blocked_until;
    ELSE
        reserved := entry.count + 1;
        UPDATE rate_limits SET
            count = reserved,
            blocked_until = CASE WHEN reserved >= p_free_attempts THEN
                p_now + LEAST(p_delay * power(2, LEAST(reserved - p_free_attempts, 20)), p_delay_maximum)
            END
        WHERE key = p_key;
    END IF;
END $$;

-- Security events, append-only. No foreign key: the trace outlives the account.
CREATE TABLE audit_events (
    id uuid NOT NULL,
    occurred_at timestamptz NOT NULL,
    event text NOT NULL,
    outcome text NOT NULL,
    reason text,
    account_id uuid,
    session_id uuid,
    address inet,
    user_agent text NOT NULL DEFAULT '',
    request_id text NOT NULL,
    CONSTRAINT audit_events_pkey PRIMARY KEY (id),
    CONSTRAINT audit_events_outcome CHECK (outcome IN ('success', 'failure'))
);
CREATE INDEX audit_events_by_account ON audit_events (account_id, id DESC);

CREATE FUNCTION refuse_audit_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'audit_events is append-only';
END $$;
CREATE TRIGGER audit_events_append_only BEFORE UPDATE OR DELETE ON audit_events
    FOR EACH ROW EXECUTE FUNCTION refuse_audit_change();
CREATE TRIGGER audit_events_no_truncate BEFORE TRUNCATE ON audit_events
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_audit_change();

-- Messages written with the change they announce.
CREATE TABLE outbox (
    id uuid NOT NULL,
    kind text NOT NULL,
    recipient text NOT NULL,
    account_id uuid,
    locale text,
    created_at timestamptz NOT NULL,
    CONSTRAINT outbox_pkey PRIMARY KEY (id)
);
CREATE INDEX outbox_by_account ON outbox (account_id);
CREATE INDEX outbox_by_recipient ON outbox (lower(recipient));

-- Idempotency-Key (24 h). The answer is encrypted with a key derived from the client's key, of which only a
-- hash is here: a copy of this table reveals no token.
CREATE TABLE idempotency_keys (
    key_hash bytea NOT NULL,
    request_hash bytea NOT NULL,
    claim_id uuid NOT NULL,
    claimed_until timestamptz NOT NULL,
    expires_at timestamptz NOT NULL,
    answer bytea,
    CONSTRAINT idempotency_keys_pkey PRIMARY KEY (key_hash)
);
CREATE INDEX idempotency_keys_by_expiry ON idempotency_keys (expires_at);
