-- +goose Up
-- Tenants, their users, and the feed of changes. The schema is there already: whoever migrates makes it, see migrate.go.

CREATE TABLE postern.tenants (
	id       text COLLATE "C" PRIMARY KEY CHECK (id ~ '^[a-z0-9][a-z0-9_-]{0,62}$'),
	document jsonb NOT NULL CHECK (jsonb_typeof(document) = 'object'),
	client_key bytea, -- sealed: of the certificate that the server is shown
	machine_token bytea, -- sealed: for the API of the machine's provider
	machine  text COLLATE "C" GENERATED ALWAYS AS (
		CASE document->'machine'->>'provider'
			WHEN 'fly' THEN 'fly/' || (document->'machine'->>'app') || '/' || (document->'machine'->>'id')
			WHEN 'local' THEN 'local/' || (document->'machine'->>'name')
		END) STORED,
	flycast  text COLLATE "C" GENERATED ALWAYS AS (document->>'flycast') STORED,
	CONSTRAINT tenants_machine UNIQUE (machine) DEFERRABLE INITIALLY DEFERRED, -- it may go from one to another
	CONSTRAINT tenants_flycast UNIQUE (flycast) DEFERRABLE INITIALLY DEFERRED
);

CREATE TABLE postern.users (
	tenant          text COLLATE "C" NOT NULL REFERENCES postern.tenants ON UPDATE CASCADE ON DELETE CASCADE,
	name            text COLLATE "C" NOT NULL CHECK (name <> ''),
	document        jsonb NOT NULL DEFAULT '{}' CHECK (jsonb_typeof(document) = 'object'),
	verifier        bytea, -- sealed, as the next two
	password        bytea,
	server_password bytea,
	PRIMARY KEY (tenant, name)
);

-- The head of the feed: one row. Whoever changes something holds it from its commit's beginning to its end.
CREATE TABLE postern.feed (
	only_row boolean PRIMARY KEY DEFAULT true CHECK (only_row),
	version  bigint NOT NULL
);
INSERT INTO postern.feed (version) VALUES (0);

-- The feed: for each tenant that ever was the version of its last change, a random mark of it, and when it was: after an older
-- snapshot was restored versions come again, marks do not. It is a table of its own, so that it is written under
-- the head's lock alone: no two transactions can wait for each other.
CREATE TABLE postern.changes (
	tenant  text COLLATE "C" PRIMARY KEY,
	version bigint NOT NULL,
	mark    bigint NOT NULL,
	at      timestamptz NOT NULL
);
CREATE INDEX changes_version ON postern.changes (version);

-- +goose StatementBegin
CREATE FUNCTION postern.changed(id text) RETURNS void LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
	v bigint := nullif(current_setting('postern.version', true), '')::bigint; -- of this transaction
BEGIN
	IF v IS NULL THEN
		UPDATE postern.feed SET version = version + 1 RETURNING version INTO v;
		PERFORM set_config('postern.version', v::text, true);
		IF current_setting('synchronous_commit') = 'off' THEN -- what others have seen must not be lost in a crash
			PERFORM set_config('synchronous_commit', 'local', true);
		END IF;
	END IF;
	INSERT INTO postern.changes (tenant, version, mark, at)
		VALUES (id, v, ('x' || left(replace(gen_random_uuid()::text, '-', ''), 15))::bit(60)::bigint, clock_timestamp())
		ON CONFLICT (tenant) DO UPDATE SET version = excluded.version, mark = excluded.mark, at = excluded.at WHERE changes.version <> excluded.version;
	PERFORM pg_notify('postern_tenants', v || ' ' || id);
END $$;
-- +goose StatementEnd

-- +goose StatementBegin
CREATE FUNCTION postern.touch() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
	IF TG_OP <> 'INSERT' THEN
		PERFORM postern.changed(to_jsonb(OLD)->>TG_ARGV[0]);
	END IF;
	IF TG_OP <> 'DELETE' THEN
		PERFORM postern.changed(to_jsonb(NEW)->>TG_ARGV[0]);
	END IF;
	RETURN NULL;
END $$;
-- +goose StatementEnd

-- +goose StatementBegin
CREATE FUNCTION postern.no_truncate() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	RAISE EXCEPTION 'TRUNCATE tells nobody: use DELETE' USING ERRCODE = 'feature_not_supported';
END $$;
-- +goose StatementEnd

-- Deferred: they run when the transaction commits, so that the head is held for a moment only.
CREATE CONSTRAINT TRIGGER feed AFTER INSERT OR UPDATE OR DELETE ON postern.tenants
	DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION postern.touch('id');
CREATE CONSTRAINT TRIGGER feed AFTER INSERT OR UPDATE OR DELETE ON postern.users
	DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION postern.touch('tenant');
CREATE TRIGGER no_truncate BEFORE TRUNCATE ON postern.users EXECUTE FUNCTION postern.no_truncate(); -- and so of tenants, which they refer to
