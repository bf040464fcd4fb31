-- +goose Up
-- The tenants' own logins that list roles, and what they have listed.

ALTER TABLE postern.tenants ADD auth_query_password bytea; -- sealed

-- Roles of tenants' servers with their verifiers, as those have listed them last, for the time when they sleep. No part of the feed:
-- each node asks for itself, and reads this when it knows nothing.
CREATE TABLE postern.roles (
	tenant text COLLATE "C" PRIMARY KEY REFERENCES postern.tenants ON UPDATE CASCADE ON DELETE CASCADE,
	sealed bytea NOT NULL,
	at     timestamptz NOT NULL -- when the server said so, by this clock
);

-- Who may come in no more is not remembered for the day when he may again.
-- +goose StatementBegin
CREATE FUNCTION postern.forget_roles() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
	DELETE FROM postern.roles WHERE tenant = NEW.id;
	RETURN NULL;
END $$;
-- +goose StatementEnd
CREATE TRIGGER forget_roles AFTER UPDATE ON postern.tenants FOR EACH ROW
	WHEN (OLD.document ? 'auth_query' AND NOT NEW.document ? 'auth_query') EXECUTE FUNCTION postern.forget_roles();
