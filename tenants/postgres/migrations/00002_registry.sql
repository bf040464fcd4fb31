-- +goose Up
-- Tokens of the admin API, and the audit log.

CREATE TABLE postern.tokens (
	id      text COLLATE "C" PRIMARY KEY,
	name    text NOT NULL CHECK (name <> ''),
	scope   text NOT NULL,
	tenant  text COLLATE "C" REFERENCES postern.tenants ON UPDATE CASCADE ON DELETE CASCADE, -- who is gone has no tokens
	digest  bytea NOT NULL CHECK (octet_length(digest) = 32),
	created timestamptz NOT NULL DEFAULT now(),
	expires timestamptz,
	used    timestamptz, -- to the minute
	revoked timestamptz,
	CONSTRAINT tokens_digest UNIQUE (digest),
	CHECK (scope IN ('operator', 'metrics') AND tenant IS NULL OR scope IN ('tenant:read', 'tenant:write') AND tenant IS NOT NULL)
);
CREATE INDEX tokens_tenant ON postern.tokens (tenant);

-- The audit log. Whoever inserts says who did what; number, time, version and chain are the trigger's.
CREATE TABLE postern.audit (
	number  bigint PRIMARY KEY, -- from 1, without gaps
	at      timestamptz NOT NULL,
	actor   text NOT NULL,
	token   text NOT NULL,
	address text NOT NULL,
	request text NOT NULL,
	action  text NOT NULL,
	tenant  text COLLATE "C" NOT NULL, -- '': none. It may be gone, or never have been
	outcome text NOT NULL,
	version bigint NOT NULL, -- of the transaction's change in the feed; 0: none
	changes jsonb NOT NULL,
	chain   bytea NOT NULL -- sha256 of the chain of the row before, and the sha256 of each of the columns above as text
);
CREATE INDEX audit_tenant ON postern.audit (tenant, number);

-- The lock is held until the commit, so that numbers have no gaps and follow commits. It is the last that a transaction takes, after
-- the feed's head: no two can wait for each other.
-- +goose StatementBegin
CREATE FUNCTION postern.audit_entry() RETURNS trigger LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
	last record;
BEGIN
	PERFORM pg_advisory_xact_lock(x'706f737465726f'::bigint); -- whoever migrates has the number before
	SELECT number, chain INTO last FROM postern.audit ORDER BY number DESC LIMIT 1;
	NEW.number := coalesce(last.number, 0) + 1;
	NEW.at := clock_timestamp();
	NEW.version := coalesce(nullif(current_setting('postern.version', true), ''), '0')::bigint;
	SELECT sha256(coalesce(last.chain, '') || string_agg(sha256(convert_to(field, 'UTF8')), '' ORDER BY i)) INTO NEW.chain
		FROM unnest(ARRAY[NEW.number::text, to_char(NEW.at AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS.US'), NEW.actor, NEW.token, NEW.address, NEW.request,
			NEW.action, NEW.tenant, NEW.outcome, NEW.version::text, NEW.changes::text]) WITH ORDINALITY AS f (field, i);
	RETURN NEW;
END $$;
-- +goose StatementEnd

-- +goose StatementBegin
CREATE FUNCTION postern.append_only() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	RAISE EXCEPTION 'the audit log is only added to' USING ERRCODE = 'feature_not_supported';
END $$;
-- +goose StatementEnd

CREATE TRIGGER entry BEFORE INSERT ON postern.audit FOR EACH ROW EXECUTE FUNCTION postern.audit_entry();
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON postern.audit EXECUTE FUNCTION postern.append_only();
REVOKE UPDATE, DELETE, TRUNCATE ON postern.audit FROM PUBLIC, CURRENT_USER;
