-- Projections of the log: every row is a pure function of the events, never of the clock or of their arrival. All of it
-- may be emptied and read again from the topics that are kept for ever (receipts only as far as their retention goes).

CREATE TABLE story (
    topic    text        NOT NULL,
    key      text        NOT NULL,
    sequence bigint      NOT NULL,
    id       text        NOT NULL,
    type     text        NOT NULL,
    time     timestamptz NOT NULL,
    body     jsonb,
    PRIMARY KEY (topic, key, sequence)
);
CREATE INDEX story_of_clocks ON story (type) WHERE type IN ('clock.warned.v1', 'clock.breached.v1');
COMMENT ON TABLE story IS
    'Every event of the topics about requests, without its sensitive part; body is null where the content is restricted.';

-- Each topic owns a group of columns and writes it only when its sequence is newer, so the order in which topics are read
-- does not matter. Times keep the first time a milestone was reached.
CREATE TABLE request (
    request_id          text PRIMARY KEY,

    intake_sequence     bigint NOT NULL DEFAULT 0,
    intake_time         timestamptz,
    intake_step         text CHECK (intake_step IN
        ('needs_information', 'accepted', 'declined', 'referred_out', 'withdrawn', 'cancelled')),
    on_hold             boolean,
    reopenings          integer NOT NULL DEFAULT 0,
    ori                 text,
    agency_name         text,
    agency_type         text,
    state               text,
    sworn_band          text,
    topics              text[],
    urgency             text,
    submitted_at        timestamptz,
    answered_at         timestamptz,
    accepted_at         timestamptz,

    match_sequence      bigint NOT NULL DEFAULT 0,
    match_time          timestamptz,
    match_step          text CHECK (match_step IN ('proposed', 'confirmed', 'not_found', 'released')),
    match_attempt       integer,
    partner_id          text,
    expert_ids          text[],
    first_proposed_at   timestamptz,
    match_confirmed_at  timestamptz,

    engagement_sequence bigint NOT NULL DEFAULT 0,
    engagement_time     timestamptz,
    engagement_step     text CHECK (engagement_step IN
        ('planned', 'not_plannable', 'confirmed', 'delivered', 'closed', 'dropped')),
    engagement_attempt  integer,
    follow_up           boolean,
    completions         integer NOT NULL DEFAULT 0,
    first_planned_at    timestamptz,
    confirmed_at        timestamptz,
    delivered_at        timestamptz,
    closed_at           timestamptz,

    -- Where the request stands, from what the three topics have said last. A match and an engagement are compared by the
    -- number of the match (attempt), completions by how often the request was reopened: never by their clocks.
    step text NOT NULL GENERATED ALWAYS AS (
        CASE
            WHEN intake_step IN ('declined', 'referred_out', 'withdrawn', 'cancelled') THEN intake_step
            WHEN engagement_step = 'closed' AND completions > reopenings THEN 'closed'
            WHEN on_hold THEN 'on_hold'
            WHEN intake_step = 'needs_information' THEN intake_step
            WHEN engagement_step NOT IN ('closed', 'dropped')
                AND (engagement_attempt > coalesce(match_attempt, 0)
                    OR engagement_attempt = match_attempt AND match_step IN ('proposed', 'confirmed'))
                THEN CASE WHEN engagement_step = 'delivered' AND follow_up THEN 'follow_up_due' ELSE engagement_step END
            WHEN engagement_step IN ('closed', 'dropped')
                AND engagement_attempt >= match_attempt AND match_step IN ('proposed', 'confirmed') THEN 'accepted'
            WHEN match_step = 'proposed' THEN 'proposed'
            WHEN match_step = 'confirmed' THEN 'matched'
            WHEN match_step = 'not_found' THEN 'unfilled'
            ELSE 'accepted'
        END
    ) STORED,

    -- Whether a match holds that is not yet delivered: it counts towards the partner's capacity, also while on hold.
    in_hand boolean NOT NULL GENERATED ALWAYS AS (
        coalesce(match_step IN ('proposed', 'confirmed'), false)
        AND NOT coalesce(intake_step IN ('withdrawn', 'cancelled'), false)
        AND NOT coalesce(engagement_step IN ('delivered', 'closed', 'dropped') AND engagement_attempt >= match_attempt, false)
    ) STORED
) WITH (fillfactor = 70);
COMMENT ON TABLE request IS 'One row a request: who asked for what, where it stands, and when it got there.';

CREATE TABLE partner (
    partner_id text PRIMARY KEY,
    sequence   bigint NOT NULL,
    time       timestamptz NOT NULL,
    name       text,
    acronym    text,
    capacity   integer,
    selected   boolean NOT NULL
);
COMMENT ON TABLE partner IS 'Membership associations and whether they are selected to provide assistance.';

CREATE TABLE expert (
    expert_id      text PRIMARY KEY,
    sequence       bigint NOT NULL,
    time           timestamptz NOT NULL,
    partner_id     text,
    topics         text[],
    delivery_modes text[],
    load_limit     integer,
    listed         boolean NOT NULL
);
COMMENT ON TABLE expert IS 'Experts of the partners: what they cover and how many requests they may hold.';

CREATE TABLE receipt_count (
    source  text NOT NULL,
    type    text NOT NULL,
    outcome text NOT NULL CHECK (outcome IN ('taken', 'refused')),
    count   bigint NOT NULL,
    PRIMARY KEY (source, type, outcome)
);
COMMENT ON TABLE receipt_count IS 'How many submissions of each type each system has sent, and what became of them.';
