-- The audit trail is a chain: each event carries the hash of the one before it. Events are appended without a
-- lock, as ever; maintenance numbers those that were committed, in batches, and fills these columns once. Address
-- and user agent enter the hash through `personal_hash`, so that erasing them breaks nothing: without the salt
-- it tells nobody what they were.
ALTER TABLE audit_events
    ADD COLUMN position bigint,
    ADD COLUMN previous_hash bytea,
    ADD COLUMN personal_salt bytea,
    ADD COLUMN personal_hash bytea,
    ADD COLUMN hash bytea,
    -- NOT VALID: the columns are new and empty, there is nothing to look at.
    ADD CONSTRAINT audit_events_chained
        CHECK (num_nonnulls(position, previous_hash, personal_hash, hash) IN (0, 4)) NOT VALID;
CREATE UNIQUE INDEX audit_events_position_key ON audit_events (position) WHERE position IS NOT NULL;
CREATE INDEX audit_events_to_chain ON audit_events (id) WHERE position IS NULL;

-- What administrators search by; with the two above, these four make an insertion 6 microseconds dearer. Of most
-- events nobody but the owner is the actor: that index is small.
CREATE INDEX audit_events_by_time ON audit_events (occurred_at, id);
CREATE INDEX audit_events_by_event ON audit_events (event, occurred_at, id);
CREATE INDEX audit_events_by_actor ON audit_events (actor_id, occurred_at, id) WHERE actor_id IS NOT NULL;
CREATE INDEX audit_events_by_address ON audit_events (address, occurred_at, id) WHERE address IS NOT NULL;

-- Whose account was erased: verification asks this of each event without address and user agent.
CREATE INDEX audit_events_erasures ON audit_events (account_id) WHERE event = 'account_deleted';

-- An event changes twice at most: when it joins the chain, and when its account or its actor's is erased. Whatever
-- erases it, an older image too, drops the salt. A column that is added later is held without a change here.
CREATE OR REPLACE FUNCTION refuse_audit_change() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    allowed record;
BEGIN
    IF TG_OP = 'UPDATE' THEN
        allowed := OLD;
        IF OLD.position IS NULL AND NEW.position IS NOT NULL THEN
            allowed.position := NEW.position;
            allowed.previous_hash := NEW.previous_hash;
            allowed.personal_salt := NEW.personal_salt;
            allowed.personal_hash := NEW.personal_hash;
            allowed.hash := NEW.hash;
        ELSE
            NEW.personal_salt := NULL;
            allowed.personal_salt := NULL;
            allowed.address := NULL;
            allowed.user_agent := '';
        END IF;
        IF NEW IS NOT DISTINCT FROM allowed THEN
            RETURN NEW;
        END IF;
    END IF;
    RAISE EXCEPTION 'audit_events is append-only';
END $$;

-- Where the chain stood, signed as the tokens are (RFC 7515), with the key that verifies it once the service has
-- others. Each token has the hash of the one before it, so that the newest vouches for all. One place is signed
-- again, later, once the key is another.
CREATE TABLE audit_checkpoints (
    position bigint NOT NULL,
    hash bytea NOT NULL,
    taken_at timestamptz NOT NULL,
    token text NOT NULL,
    public_jwk jsonb NOT NULL,
    CONSTRAINT audit_checkpoints_pkey PRIMARY KEY (position, taken_at)
);
CREATE FUNCTION refuse_checkpoint_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'audit_checkpoints is append-only';
END $$;
CREATE TRIGGER audit_checkpoints_append_only BEFORE UPDATE OR DELETE ON audit_checkpoints
    FOR EACH ROW EXECUTE FUNCTION refuse_checkpoint_change();
CREATE TRIGGER audit_checkpoints_no_truncate BEFORE TRUNCATE ON audit_checkpoints
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_checkpoint_change();
