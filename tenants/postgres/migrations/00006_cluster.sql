-- +goose Up
-- Several nodes as one: where each is reached, who alone may act on something, and who may open how many connections.

ALTER TABLE postern.nodes
	ADD address     text NOT NULL DEFAULT '',         -- of the port for other nodes; '': it has none
	ADD gossip      text NOT NULL DEFAULT '',         -- of its memberlist
	ADD fingerprint text NOT NULL DEFAULT '',         -- sha256 of the public key of its certificate, in hex
	ADD region      text NOT NULL DEFAULT '',
	ADD protocol    integer NOT NULL DEFAULT 0,
	ADD leaving     boolean NOT NULL DEFAULT false;   -- it drains

-- What one node at a time may do. A row stays when its lease has ended: the next epoch is above it.
CREATE TABLE postern.leases (
	key   text COLLATE "C" PRIMARY KEY,
	owner text COLLATE "C" NOT NULL,  -- name of a node; '': it has given it back
	boot  text NOT NULL,
	epoch bigint NOT NULL,            -- grows with each holder; what is acted on refuses older ones
	store text NOT NULL,              -- the epoch of the store that it was given out by
	until timestamptz NOT NULL        -- by this clock
);

-- Which nodes use what leases are about: while another node has a row here, nobody may put the machine to sleep. A silent one's
-- counts, too: it goes a while after its process has none among postern.nodes any more. Whoever adds one, or relies on there being none, has
-- the lock of the lease's row.
CREATE TABLE postern.uses (
	key   text COLLATE "C" NOT NULL,
	boot  text NOT NULL,
	node  text COLLATE "C" NOT NULL,
	since timestamptz NOT NULL,
	over  boolean NOT NULL DEFAULT false, -- it has ended in order, and may have left a machine awake
	PRIMARY KEY (key, boot)
);

-- One row for each tenant that nodes share limits of: who holds its lock may look at the portions and change its own.
CREATE TABLE postern.budgets (
	tenant text COLLATE "C" PRIMARY KEY
);

-- How many server connections a node may have. Rows are as old as their node's.
CREATE TABLE postern.portions (
	tenant  text COLLATE "C" NOT NULL,
	scope   text COLLATE "C" NOT NULL, -- '': the tenant; user/..., database/..., pool/...
	boot    text NOT NULL,
	node    text COLLATE "C" NOT NULL,
	servers integer NOT NULL,          -- that it may have, or still has
	wanted  integer NOT NULL,          -- that it could use
	alone   timestamptz,               -- when somebody has noticed that its process has no row among postern.nodes
	PRIMARY KEY (tenant, scope, boot)
);
CREATE INDEX portions_boot ON postern.portions (boot, tenant);
CREATE INDEX portions_short ON postern.portions (tenant) WHERE wanted > servers; -- somebody waits

-- Of the role that Postern itself logs in with, sealed.
ALTER TABLE postern.tenants ADD service_password bytea;
