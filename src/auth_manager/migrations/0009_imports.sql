-- Moving in: one row for each run over a file. Every batch commits its accounts and this row's position together,
-- so a run that was killed goes on after the last record it kept.
CREATE TABLE imports (
    id uuid NOT NULL,
    source text NOT NULL,
    -- Of the file's content: a file that changed is another one, and is read from its start.
    file_digest bytea NOT NULL,
    file_size bigint NOT NULL,
    -- Records read, whatever became of them.
    position bigint NOT NULL DEFAULT 0,
    -- How many accounts were created, and how many records were refused, by the code of the reason.
    created bigint NOT NULL DEFAULT 0,
    refused jsonb NOT NULL DEFAULT '{}',
    -- Bytes of the rejects file that belong to `position`; what a killed run wrote after them is cut off.
    rejects_size bigint NOT NULL DEFAULT 0,
    operator text,
    started_at timestamptz NOT NULL,
    updated_at timestamptz NOT NULL,
    finished_at timestamptz,
    CONSTRAINT imports_pkey PRIMARY KEY (id),
    CONSTRAINT imports_position_not_negative CHECK (position >= 0),
    CONSTRAINT imports_refused_object CHECK (jsonb_typeof(refused) = 'object')
);
CREATE UNIQUE INDEX imports_unfinished_key ON imports (source, file_digest) WHERE finished_at IS NULL;
