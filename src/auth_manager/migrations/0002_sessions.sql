-- A session is one sign-in. Each client that uses it has a refresh line of its own: a counter that every
-- rotation advances. The token is an HMAC over line and counter, so nothing here can be replayed.
CREATE TABLE sessions (
    id uuid NOT NULL,
    account_id uuid NOT NULL,
    created_at timestamptz NOT NULL,
    last_used_at timestamptz NOT NULL,
    expires_at timestamptz NOT NULL,
    authenticated_at timestamptz NOT NULL,
    amr text[] NOT NULL,
    acr text NOT NULL,
    address inet,
    user_agent text NOT NULL DEFAULT '',
    ended_at timestamptz,
    end_reason text,
    CONSTRAINT sessions_pkey PRIMARY KEY (id),
    CONSTRAINT sessions_account_fkey FOREIGN KEY (account_id) REFERENCES accounts (id) ON DELETE CASCADE,
    CONSTRAINT sessions_end_both CHECK ((ended_at IS NULL) = (end_reason IS NULL))
);
CREATE INDEX sessions_live_by_account ON sessions (account_id, id DESC) WHERE ended_at IS NULL;
CREATE INDEX sessions_by_expiry ON sessions (expires_at);

CREATE TABLE refresh_lines (
    id uuid NOT NULL,
    session_id uuid NOT NULL,
    client_id text NOT NULL,
    scope text NOT NULL,
    counter bigint NOT NULL,
    rotated_at timestamptz NOT NULL,
    CONSTRAINT refresh_lines_pkey PRIMARY KEY (id),
    CONSTRAINT refresh_lines_session_client_key UNIQUE (session_id, client_id),
    CONSTRAINT refresh_lines_session_fkey FOREIGN KEY (session_id) REFERENCES sessions (id) ON DELETE CASCADE,
    CONSTRAINT refresh_lines_counter_positive CHECK (counter > 0)
);
