-- What scheduling keeps: experts' calendars, engagements, and the time that is booked.

CREATE EXTENSION IF NOT EXISTS btree_gist;

CREATE TABLE expert (
    expert_id text    PRIMARY KEY,
    version   integer NOT NULL,
    profile   jsonb
) WITH (fillfactor = 80);
COMMENT ON TABLE expert IS
    'Every expert anybody has named; profile is null until the roster lists the expert. Whoever plans or changes the '
    'match of an engagement holds the rows of its experts.';

CREATE TABLE engagement (
    request_id   text    PRIMARY KEY,
    version      integer NOT NULL,
    step         text    NOT NULL CHECK (
        step IN ('waiting', 'planned', 'confirmed', 'delivered', 'completed', 'withdrawn', 'cancelled')
    ),
    expert_ids   text[]  NOT NULL,
    follow_up_on timestamptz,
    state        jsonb   NOT NULL
) WITH (fillfactor = 70);
CREATE INDEX engagement_by_expert ON engagement USING gin (expert_ids) WHERE expert_ids <> '{}';
CREATE INDEX engagement_by_follow_up ON engagement (follow_up_on) WHERE follow_up_on IS NOT NULL;
COMMENT ON TABLE engagement IS
    'One row a request: everything noted of it in state; expert_ids are those of its current match.';

CREATE TABLE booking (
    expert_id  text      NOT NULL REFERENCES expert,
    occupies   tstzrange NOT NULL CHECK (NOT isempty(occupies)),
    request_id text      NOT NULL,
    session_id text      NOT NULL,
    PRIMARY KEY (session_id, expert_id),
    CONSTRAINT one_place_at_a_time EXCLUDE USING gist (expert_id WITH =, occupies WITH &&)
);
CREATE INDEX booking_by_request ON booking (request_id);
COMMENT ON TABLE booking IS
    'The time sessions that are planned and not yet reported take of each expert, travel included. No expert is '
    'booked twice at any moment.';
