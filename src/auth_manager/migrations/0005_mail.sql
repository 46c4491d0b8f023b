-- A single-use secret that was mailed: what it is for, to whom, until when. Neither the link's token nor the
-- code is here: both are HMACs over the id and the purpose (one_time_secrets.py).
CREATE TABLE one_time_secrets (
    id uuid NOT NULL,
    purpose text NOT NULL,
    account_id uuid,            -- NULL: an invitation, or an address that nobody has, which looks the same
    email text,                 -- where it was mailed, as typed; NULL where nothing was
    email_normalized text,
    details jsonb NOT NULL DEFAULT '{}',
    limit_key text NOT NULL,    -- of the rate limit that counts guesses of the code
    failures integer NOT NULL DEFAULT 0,
    created_at timestamptz NOT NULL,
    expires_at timestamptz NOT NULL,
    used_at timestamptz,
    used_by uuid,               -- which use: sent twice by a lost connection, it counts once
    CONSTRAINT one_time_secrets_pkey PRIMARY KEY (id),
    CONSTRAINT one_time_secrets_account_fkey FOREIGN KEY (account_id) REFERENCES accounts (id) ON DELETE CASCADE,
    CONSTRAINT one_time_secrets_use_both CHECK ((used_at IS NULL) = (used_by IS NULL)),
    CONSTRAINT one_time_secrets_email_both CHECK ((email IS NULL) = (email_normalized IS NULL))
);
CREATE INDEX one_time_secrets_by_account ON one_time_secrets (account_id, id DESC);
CREATE INDEX one_time_secrets_by_email ON one_time_secrets (email_normalized);
CREATE INDEX one_time_secrets_by_expiry ON one_time_secrets (expires_at);

-- The outbox learns what a mail says besides its kind, and how its delivery went. `sending_until` is held by
-- who sends right now, so that a message that was handed over twice is sent once.
ALTER TABLE outbox
    ADD COLUMN secret_id uuid,
    ADD COLUMN details jsonb NOT NULL DEFAULT '{}',
    ADD COLUMN sent_at timestamptz,
    ADD COLUMN failed_at timestamptz,
    ADD COLUMN failure text,
    ADD COLUMN sending_until timestamptz,
    ADD COLUMN tries integer NOT NULL DEFAULT 0;
DROP INDEX outbox_to_relay;
CREATE INDEX outbox_to_relay ON outbox (created_at)
    WHERE relayed_at IS NULL AND sent_at IS NULL AND failed_at IS NULL;
CREATE INDEX outbox_unsent ON outbox (created_at) WHERE sent_at IS NULL AND failed_at IS NULL;
CREATE INDEX outbox_by_creation ON outbox (created_at);

-- Devices that an account signed in from: a hash over the account and the User-Agent without its versions.
CREATE TABLE known_devices (
    account_id uuid NOT NULL,
    device_hash bytea NOT NULL,
    first_seen_at timestamptz NOT NULL,
    last_seen_at timestamptz NOT NULL,
    CONSTRAINT known_devices_pkey PRIMARY KEY (account_id, device_hash),
    CONSTRAINT known_devices_account_fkey FOREIGN KEY (account_id) REFERENCES accounts (id) ON DELETE CASCADE
);
CREATE INDEX known_devices_by_use ON known_devices (last_seen_at);

-- An account that its owner deleted is erased at `erase_after`; until then it is disabled and can be kept.
ALTER TABLE accounts
    ADD COLUMN erase_after timestamptz,
    ADD CONSTRAINT accounts_erasure_disables CHECK (erase_after IS NULL OR disabled_at IS NOT NULL);
CREATE INDEX accounts_to_erase ON accounts (erase_after) WHERE erase_after IS NOT NULL;

-- Erasing a person takes the network address and the User-Agent out of the trail, and nothing else.
CREATE OR REPLACE FUNCTION refuse_audit_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'UPDATE' AND NEW.address IS NULL AND NEW.user_agent = ''
       AND (NEW.id, NEW.occurred_at, NEW.event, NEW.outcome, NEW.reason, NEW.account_id, NEW.session_id,
            NEW.request_id)
           IS NOT DISTINCT FROM
           (OLD.id, OLD.occurred_at, OLD.event, OLD.outcome, OLD.reason, OLD.account_id, OLD.session_id,
            OLD.request_id)
    THEN
        RETURN NEW;
    END IF;
    RAISE EXCEPTION 'audit_events is append-only';
END $$;
