-- A role is a set of permissions that accounts are given by its name (api.md lists the permissions). `claims` are
-- written into the access tokens of those who have it; a default role is given to every new account. A built-in
-- role can be neither changed nor deleted.
CREATE TABLE roles (
    name text NOT NULL,
    description text NOT NULL DEFAULT '',
    permissions text[] NOT NULL DEFAULT '{}',
    claims jsonb NOT NULL DEFAULT '{}',
    is_default boolean NOT NULL DEFAULT false,
    is_built_in boolean NOT NULL DEFAULT false,
    created_at timestamptz NOT NULL,
    updated_at timestamptz NOT NULL,
    CONSTRAINT roles_pkey PRIMARY KEY (name),
    CONSTRAINT roles_name CHECK (name ~ '^[a-z][a-z0-9_.:-]{0,63}$'),
    CONSTRAINT roles_claims_object CHECK (jsonb_typeof(claims) = 'object')
);
-- `*` is every permission but users:impersonate, which is given by name or not at all.
INSERT INTO roles (name, description, permissions, is_built_in, created_at, updated_at)
VALUES ('admin', 'May do everything but sign in as somebody else.', '{*}', true, now(), now());
INSERT INTO roles (name, created_at, updated_at)
SELECT DISTINCT role, now(), now() FROM account_roles WHERE role <> 'admin';
ALTER TABLE account_roles
    ADD CONSTRAINT account_roles_role_fkey FOREIGN KEY (role) REFERENCES roles (name) ON DELETE CASCADE;
CREATE INDEX account_roles_by_role ON account_roles (role);

-- What an account may do now: the permissions of all its roles. In PL/pgSQL, here and below, because it keeps the
-- plan for as long as the connection lives: planning costs more than running.
CREATE FUNCTION permissions_of(p_account_id uuid) RETURNS text[] LANGUAGE plpgsql STABLE AS $$
BEGIN
    RETURN ARRAY(
        SELECT DISTINCT permission
        FROM account_roles JOIN roles ON roles.name = account_roles.role
        CROSS JOIN unnest(roles.permissions) AS permission
        WHERE account_roles.account_id = p_account_id ORDER BY permission
    );
END $$;
-- The roles of an account with what they give, by name: [[name, permissions, claims], ...]; NULL: it has none.
CREATE FUNCTION grants_of(p_account_id uuid) RETURNS jsonb LANGUAGE plpgsql STABLE AS $$
BEGIN
    RETURN (
        SELECT jsonb_agg(jsonb_build_array(roles.name, roles.permissions, roles.claims)
                         ORDER BY roles.name COLLATE "C")
        FROM account_roles JOIN roles ON roles.name = account_roles.role
        WHERE account_roles.account_id = p_account_id
    );
END $$;
-- Whether who holds some permissions has all of those that are wanted.
CREATE FUNCTION permits(held text[], wanted text[]) RETURNS boolean LANGUAGE sql IMMUTABLE AS $$
    SELECT wanted <@ held OR ('*' = ANY (held)
        AND ('users:impersonate' = ANY (held) OR 'users:impersonate' <> ALL (wanted)))
$$;

-- A session in which an administrator acts for the account's owner (RFC 8693 section 4.1).
ALTER TABLE sessions ADD COLUMN impersonator_id uuid;

-- Who did it, where that is not the account's owner: another account, or an operator on the command line.
ALTER TABLE audit_events
    ADD COLUMN actor_id uuid,
    ADD COLUMN operator text,
    ADD COLUMN details jsonb NOT NULL DEFAULT '{}';
