-- Endpoints of webhooks: where events are posted to. Secrets are sealed (sealed_values.py); two of them are live
-- while one takes over from the other.
CREATE TABLE webhook_endpoints (
    id uuid NOT NULL,
    url text NOT NULL,
    types text[] NOT NULL,          -- {*}: all
    description text NOT NULL DEFAULT '',
    secret bytea NOT NULL,
    previous_secret bytea,
    previous_until timestamptz,     -- until then messages are signed with it too
    disabled_at timestamptz,
    disabled_reason text,           -- gone, failing: by us; administrator
    failing_since timestamptz,      -- the first failure since the last success
    paused_until timestamptz,       -- the last attempt took long: others' messages go first
    created_at timestamptz NOT NULL,
    updated_at timestamptz NOT NULL,
    CONSTRAINT webhook_endpoints_pkey PRIMARY KEY (id),
    CONSTRAINT webhook_endpoints_types CHECK (cardinality(types) > 0),
    CONSTRAINT webhook_endpoints_disabled_both CHECK ((disabled_at IS NULL) = (disabled_reason IS NULL)),
    CONSTRAINT webhook_endpoints_previous_both CHECK ((previous_secret IS NULL) = (previous_until IS NULL))
);

-- A message to an endpoint is a row of the outbox, and the endpoint's delivery log are its rows. `sending_until` is
-- when it is due, `failure` why the last attempt failed, `details` what is posted. No foreign key: an endpoint can
-- be deleted at once, however many messages it had; they are never sent, and go with the retention.
ALTER TABLE outbox
    ADD COLUMN endpoint_id uuid,
    ADD COLUMN last_try_at timestamptz,
    ADD COLUMN last_status integer,
    ADD COLUMN last_duration integer; -- milliseconds
CREATE INDEX outbox_webhooks_due ON outbox (endpoint_id, sending_until)
    WHERE endpoint_id IS NOT NULL AND sent_at IS NULL AND failed_at IS NULL;
CREATE INDEX outbox_webhooks_log ON outbox (endpoint_id, id DESC) WHERE endpoint_id IS NOT NULL;

-- Of mails alone: an endpoint that is down for days leaves many rows, and mails must not look past them.
DROP INDEX outbox_to_relay;
CREATE INDEX outbox_to_relay ON outbox (created_at)
    WHERE relayed_at IS NULL AND sent_at IS NULL AND failed_at IS NULL AND endpoint_id IS NULL;
DROP INDEX outbox_unsent;
CREATE INDEX outbox_unsent ON outbox (created_at)
    WHERE sent_at IS NULL AND failed_at IS NULL AND endpoint_id IS NULL;

-- The messages that are due, those due longest first, locked for who asks. None of an endpoint that is disabled or
-- paused. With `p_unclaimed_at` none either that a relay claimed for longer than that.
CREATE FUNCTION due_webhooks(p_limit integer, p_unclaimed_at timestamptz DEFAULT NULL) RETURNS SETOF uuid
LANGUAGE sql ROWS 10 AS $$
    SELECT message.id FROM webhook_endpoints AS endpoint CROSS JOIN LATERAL (
        SELECT id, sending_until FROM outbox
        WHERE endpoint_id = endpoint.id AND sent_at IS NULL AND failed_at IS NULL
          AND sending_until <= clock_timestamp()
          AND (p_unclaimed_at IS NULL OR relay_after IS NULL OR relay_after <= p_unclaimed_at)
        ORDER BY sending_until LIMIT p_limit FOR UPDATE SKIP LOCKED
    ) AS message
    WHERE endpoint.disabled_at IS NULL
      AND (endpoint.paused_until IS NULL OR endpoint.paused_until <= clock_timestamp())
    ORDER BY message.sending_until LIMIT p_limit
$$;

-- What an event of the audit trail is called outside; NULL: it is announced to nobody.
CREATE FUNCTION webhook_type_of(event text) RETURNS text LANGUAGE sql IMMUTABLE AS $$
    SELECT CASE event
        WHEN 'registered' THEN 'user.created'
        WHEN 'registered_by_invitation' THEN 'user.created'
        WHEN 'account_created' THEN 'user.created'
        WHEN 'accounts_imported' THEN 'users.imported'
        WHEN 'profile_changed' THEN 'user.updated'
        WHEN 'account_changed' THEN 'user.updated'
        WHEN 'email_verified' THEN 'user.verified'
        WHEN 'email_changed' THEN 'user.email_changed'
        WHEN 'password_changed' THEN 'user.password_changed'
        WHEN 'password_reset' THEN 'user.password_changed'
        WHEN 'totp_added' THEN 'user.factors_changed'
        WHEN 'totp_removed' THEN 'user.factors_changed'
        WHEN 'passkey_added' THEN 'user.factors_changed'
        WHEN 'passkey_removed' THEN 'user.factors_changed'
        WHEN 'recovery_codes_made' THEN 'user.factors_changed'
        WHEN 'recovery_code_used' THEN 'user.factors_changed'
        WHEN 'mfa_reset' THEN 'user.factors_changed'
        WHEN 'roles_changed' THEN 'user.roles_changed'
        WHEN 'account_locked' THEN 'user.locked'
        WHEN 'account_unlocked' THEN 'user.unlocked'
        WHEN 'account_disabled' THEN 'user.disabled'
        WHEN 'account_enabled' THEN 'user.enabled'
        WHEN 'erasure_scheduled' THEN 'user.erasure_scheduled'
        WHEN 'erasure_cancelled' THEN 'user.erasure_cancelled'
        WHEN 'account_deleted' THEN 'user.deleted'
        WHEN 'impersonation_started' THEN 'user.impersonated'
        WHEN 'logged_in' THEN 'session.created'
        WHEN 'logged_in_by_mail' THEN 'session.created'
        WHEN 'logged_in_by_passkey' THEN 'session.created'
        WHEN 'logged_out_this' THEN 'session.ended'
        WHEN 'session_revoked' THEN 'session.ended'
        WHEN 'refresh_token_reused' THEN 'session.ended'
        WHEN 'logged_out_others' THEN 'sessions.ended'
        WHEN 'logged_out_all' THEN 'sessions.ended'
        WHEN 'logged_out_by_administrator' THEN 'sessions.ended'
    END
$$;

-- The id of a message: of version 7 and as old as its event, and always the same for one event and one endpoint.
CREATE FUNCTION webhook_message_id(event_id uuid, endpoint_id uuid) RETURNS uuid LANGUAGE sql IMMUTABLE AS $$
    SELECT (left(event_id::text, 14) || '7' || substr(digest, 1, 3) || '-8' || substr(digest, 4, 3) || '-'
            || substr(digest, 7, 12))::uuid
    FROM encode(sha256(uuid_send(event_id) || uuid_send(endpoint_id)), 'hex') AS digest
$$;

-- Write the messages of an event in its own transaction. What is posted is fixed here, and holds ids, names of roles
-- and fields, and counts alone: it may lie in the outbox after the account was erased.
CREATE FUNCTION announce_to_webhooks() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    announced text := webhook_type_of(NEW.event);
BEGIN
    IF announced IS NULL THEN
        RETURN NULL;
    END IF;
    INSERT INTO outbox (id, kind, recipient, created_at, endpoint_id, sending_until, details)
    SELECT webhook_message_id(NEW.id, endpoint.id), 'webhook', '', NEW.occurred_at, endpoint.id,
           LEAST(NEW.occurred_at, clock_timestamp()),
           jsonb_build_object(
               'type', announced,
               'timestamp', to_char(NEW.occurred_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"'),
               'data', jsonb_strip_nulls(jsonb_build_object(
                   'event', NEW.event,
                   'user_id', NEW.account_id,
                   -- For other types it is the session by which something was done, and nobody's business.
                   'session_id', CASE WHEN announced LIKE 'session.%' OR announced = 'user.impersonated'
                       THEN COALESCE(NEW.details ->> 'revoked_session_id', NEW.session_id::text) END,
                   'kept_session_id', CASE WHEN NEW.event = 'logged_out_others' THEN NEW.session_id END,
                   'actor_id', NEW.actor_id,
                   'roles', NEW.details -> 'roles',
                   'added', NEW.details -> 'added',
                   'removed', NEW.details -> 'removed',
                   'fields', NEW.details -> 'fields',
                   'count', NEW.details -> 'count')))
    FROM webhook_endpoints AS endpoint
    WHERE endpoint.disabled_at IS NULL AND endpoint.types && ARRAY[announced, '*']
    ON CONFLICT ON CONSTRAINT outbox_pkey DO NOTHING;
    RETURN NULL;
END $$;

-- A lock-out, and a session that ends because its token was stolen, are the outcomes of failed attempts.
CREATE TRIGGER audit_events_announced AFTER INSERT ON audit_events FOR EACH ROW
    WHEN (NEW.outcome = 'success' OR NEW.event IN ('account_locked', 'refresh_token_reused'))
    EXECUTE FUNCTION announce_to_webhooks();
