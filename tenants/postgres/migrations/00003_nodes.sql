-- +goose Up
-- The processes that follow the store, which version of it is in force on each, and the key that its secrets get.

CREATE TABLE postern.nodes (
	name    text COLLATE "C" PRIMARY KEY CHECK (name <> ''),
	boot    text NOT NULL,        -- tells processes of one name apart
	started timestamptz NOT NULL,
	seen    timestamptz NOT NULL, -- by this clock
	epoch   text NOT NULL,        -- that applied is of; '': it has not read anything yet
	applied bigint NOT NULL,      -- everything up to this version is in force there
	refused text[] NOT NULL,      -- but for these tenants; *: too many to list
	keys    text[] NOT NULL,      -- ids of the keys that it has, the one that seals first
	cache   text NOT NULL         -- id of the key of its cache file; '': there is none
) WITH (fillfactor = 50);         -- each is written every second

-- When versions came into force on nodes. Not every version has a row: the next one has what it brought, too.
CREATE TABLE postern.applied (
	node    text COLLATE "C" NOT NULL,
	epoch   text NOT NULL,
	version bigint NOT NULL,
	at      timestamptz NOT NULL,
	refused text[] NOT NULL,          -- but for these tenants; *: too many to keep
	PRIMARY KEY (node, epoch, version)
);

-- The key that all secrets are being sealed with anew. No row: nobody is at it.
CREATE TABLE postern.rotation (
	only_row boolean PRIMARY KEY DEFAULT true CHECK (only_row),
	key      text NOT NULL,
	started  timestamptz NOT NULL DEFAULT clock_timestamp()
);
