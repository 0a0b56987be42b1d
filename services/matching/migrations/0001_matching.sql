-- What matching knows: requests with their matches, experts and partners. What is searched or counted stands in columns;
-- what is only read back as a whole stands in `state`.

CREATE TABLE pool (
    request_id text PRIMARY KEY,
    version    integer NOT NULL,
    step       text    NOT NULL CHECK (step IN ('unseen', 'waiting', 'proposed', 'confirmed', 'ended')),
    held       boolean NOT NULL,
    due        timestamptz,
    tried_on   date,
    changed    boolean NOT NULL,
    state      jsonb   NOT NULL
) WITH (fillfactor = 70);
CREATE INDEX pool_changed ON pool (due, request_id) WHERE changed;
CREATE INDEX pool_waiting ON pool (tried_on) WHERE step = 'waiting' AND NOT held;
COMMENT ON TABLE pool IS
    'Every request matching has heard of, whatever its step; changed until a round has looked at it as it stands.';

CREATE TABLE match (
    match_id       text PRIMARY KEY,
    request_id     text    NOT NULL REFERENCES pool,
    nth            integer NOT NULL,
    partner_id     text    NOT NULL,
    expert_ids     text[]  NOT NULL,
    proposed_at    timestamptz NOT NULL,
    stage          text    NOT NULL CHECK (stage IN ('proposed', 'confirmed', 'ended')),
    agency_agrees  boolean NOT NULL,
    partner_agrees boolean NOT NULL,
    UNIQUE (request_id, nth)
) WITH (fillfactor = 70);
CREATE UNIQUE INDEX match_active ON match (request_id) WHERE stage <> 'ended';
CREATE INDEX match_proposed_at ON match (proposed_at);
COMMENT ON TABLE match IS
    'The matches of each request, one after the other, at most one of them active. '
    'The active ones are the load of their experts and their partner.';

CREATE TABLE expert (
    expert_id text PRIMARY KEY,
    version   integer NOT NULL,
    listed    boolean NOT NULL,
    changed   boolean NOT NULL,
    state     jsonb   NOT NULL
) WITH (fillfactor = 70);
CREATE INDEX expert_changed ON expert (expert_id) WHERE changed;
COMMENT ON TABLE expert IS
    'The roster''s experts with their declared conflicts; changed until a round has checked their matches again.';

CREATE TABLE partner (
    partner_id text PRIMARY KEY,
    version    integer NOT NULL,
    changed    boolean NOT NULL,
    state      jsonb   NOT NULL
) WITH (fillfactor = 70);
CREATE INDEX partner_changed ON partner (partner_id) WHERE changed;
COMMENT ON TABLE partner IS
    'The roster''s partners with awards and declared conflicts; changed until a round has checked their matches again.';
