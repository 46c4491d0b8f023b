-- The outbox is handed to a queue. A row is claimed until `relay_after`, so that what a killed relay held is
-- taken up again; `relayed_at` is when the queue had it.
ALTER TABLE outbox
    ADD COLUMN relayed_at timestamptz,
    ADD COLUMN relay_after timestamptz,
    ADD COLUMN attempts integer NOT NULL DEFAULT 0;
CREATE INDEX outbox_to_relay ON outbox (created_at) WHERE relayed_at IS NULL;

-- For the clean-up of sessions that ended.
CREATE INDEX sessions_by_end ON sessions (ended_at) WHERE ended_at IS NOT NULL;
