-- Accounts: one row per person. E-mail and username are unique by their normalised form; the address
-- as typed is kept for mail.
CREATE TABLE accounts (
    id uuid NOT NULL,
    email text NOT NULL,
    email_normalized text NOT NULL,
    email_verified_at timestamptz,
    username text,
    username_normalized text,
    display_name text,
    locale text,
    attributes jsonb NOT NULL DEFAULT '{}',
    password_hash text NOT NULL,
    password_changed_at timestamptz NOT NULL,
    disabled_at timestamptz,
    created_at timestamptz NOT NULL,
    updated_at timestamptz NOT NULL,
    CONSTRAINT accounts_pkey PRIMARY KEY (id),
    CONSTRAINT accounts_email_key UNIQUE (email_normalized),
    CONSTRAINT accounts_username_key UNIQUE (username_normalized),
    CONSTRAINT accounts_username_both CHECK ((username IS NULL) = (username_normalized IS NULL)),
    CONSTRAINT accounts_attributes_object CHECK (jsonb_typeof(attributes) = 'object')
);

CREATE TABLE account_roles (
    account_id uuid NOT NULL,
    role text NOT NULL,
    granted_at timestamptz NOT NULL,
    CONSTRAINT account_roles_pkey PRIMARY KEY (account_id, role),
    CONSTRAINT account_roles_account_fkey FOREIGN KEY (account_id) REFERENCES accounts (id) ON DELETE CASCADE,
    CONSTRAINT account_roles_role_name CHECK (role ~ '^[a-z][a-z0-9_.:-]{0,63}$')
);
