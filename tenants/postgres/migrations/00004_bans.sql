-- +goose Up
-- Bans that nodes tell each other of. They are no part of the feed: whoever is banned changes no tenant.

CREATE TABLE postern.bans (
	tenant   text COLLATE "C" NOT NULL, -- '': all tenants together
	address  cidr NOT NULL,
	until    timestamptz NOT NULL,      -- by this clock
	failures integer NOT NULL,          -- that have led to it
	manual   boolean NOT NULL,          -- somebody wants it so
	made_by  text NOT NULL,             -- name of the node
	PRIMARY KEY (tenant, address)
);
CREATE INDEX bans_until ON postern.bans (until);

-- What is said is which ban to look at: tenant and address. One that was over anyhow is nobody's news.
-- +goose StatementBegin
CREATE FUNCTION postern.ban_changed() RETURNS trigger LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
	IF TG_OP <> 'INSERT' AND (TG_OP = 'DELETE' AND OLD.until > clock_timestamp() OR OLD.tenant <> NEW.tenant OR OLD.address <> NEW.address) THEN
		PERFORM pg_notify('postern_bans', OLD.tenant || ' ' || OLD.address);
	END IF;
	IF TG_OP <> 'DELETE' THEN
		PERFORM pg_notify('postern_bans', NEW.tenant || ' ' || NEW.address);
	END IF;
	RETURN NULL;
END $$;
-- +goose StatementEnd
CREATE TRIGGER changed AFTER INSERT OR UPDATE OR DELETE ON postern.bans FOR EACH ROW EXECUTE FUNCTION postern.ban_changed();
CREATE TRIGGER no_truncate BEFORE TRUNCATE ON postern.bans EXECUTE FUNCTION postern.no_truncate();

-- Who is gone has no bans. It is no foreign key: that would lock the tenant's row for each ban.
-- +goose StatementBegin
CREATE FUNCTION postern.bans_end() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
	DELETE FROM postern.bans WHERE tenant = OLD.id;
	RETURN NULL;
END $$;
-- +goose StatementEnd
CREATE TRIGGER bans_end AFTER DELETE OR UPDATE OF id ON postern.tenants FOR EACH ROW EXECUTE FUNCTION postern.bans_end();
