-- What intake knows: agencies, topics of assistance, requests and the roster.

CREATE TABLE agency (
    ori            text PRIMARY KEY CHECK (ori ~ '^[A-Z]{2}[A-Z0-9]{7}$'),
    name           text NOT NULL,
    agency_type    text NOT NULL,
    state          text NOT NULL CHECK (state ~ '^[A-Z]{2}$'),
    county         text,
    latitude       double precision,
    longitude      double precision,
    time_zone      text NOT NULL,
    sworn_officers integer,
    sworn_band     text NOT NULL,
    active         boolean NOT NULL,
    CHECK ((latitude IS NULL) = (longitude IS NULL))
);
COMMENT ON TABLE agency IS
    'The registry: law-enforcement agencies by ORI, imported from the FBI''s list. A row is locked while a request of its agency is weighed.';

CREATE TABLE topic_of_assistance (
    code      text PRIMARY KEY CHECK (code ~ '^[a-z0-9]+(-[a-z0-9]+)*$'),
    title     text NOT NULL,
    first_day date NOT NULL,
    last_day  date CHECK (last_day >= first_day),
    refer_to  text
);
COMMENT ON TABLE topic_of_assistance IS
    'Topics of assistance with the days on which they are offered; refer_to says who helps once they no longer are.';

INSERT INTO topic_of_assistance (code, title, first_day) VALUES
    ('problem-solving', 'Problem-solving techniques and strategies for crime reduction, violent crime in particular', '2017-10-01'),
    ('gun-violence', 'Gun-violence prevention best practices: from reactive to proactive policing', '2017-10-01'),
    ('focused-deterrence', 'Focused deterrence for broader public-safety goals', '2017-10-01'),
    ('gang-prevention', 'Preventing gang participation and violence with schools and youth', '2017-10-01'),
    ('public-sector-coordination', 'Coordination with prosecutors and other public- and private-sector stakeholders', '2017-10-01'),
    ('intelligence-sharing', 'Intelligence and information sharing between federal and local law enforcement', '2017-10-01'),
    ('mass-casualty', 'Mass-casualty response', '2017-10-01'),
    ('active-shooter', 'Active-shooter response', '2017-10-01'),
    ('mass-demonstrations', 'Police response to mass demonstrations', '2017-10-01'),
    ('compstat', '21st-century COMPSTAT: management principles, crime analysis and GIS for crime reduction', '2017-10-01'),
    ('officer-wellness', 'Officer safety and wellness', '2017-10-01'),
    ('training', 'Training for de-escalation, crisis intervention and citizen engagement to address violent crime', '2017-10-01'),
    ('tribal', 'Crime-reduction strategy support for Tribal law enforcement', '2017-10-01'),
    ('shared-services', 'Shared-service models for smaller jurisdictions', '2017-10-01');

CREATE TABLE request (
    id        text PRIMARY KEY,
    version   integer NOT NULL,
    ori       text NOT NULL,
    step      text NOT NULL CHECK (step IN ('needs_information', 'awaiting_ruling', 'accepted', 'on_hold', 'declined',
                                            'referred_out', 'withdrawn', 'cancelled', 'closed')),
    rings_at  timestamptz,
    state     jsonb NOT NULL,
    sensitive jsonb
);
CREATE INDEX request_by_step ON request (step);
CREATE INDEX request_by_clock ON request (rings_at) WHERE rings_at IS NOT NULL;
COMMENT ON TABLE request IS
    'Requests and the step each has reached. sensitive holds contact data and the narrative only until intake has decided.';

CREATE TABLE open_topic (
    ori        text NOT NULL,
    topic      text NOT NULL,
    request_id text NOT NULL REFERENCES request (id),
    PRIMARY KEY (ori, topic)
);
CREATE INDEX open_topic_by_request ON open_topic (request_id);
COMMENT ON TABLE open_topic IS
    'Topics of open requests: an agency has at most one open request on a topic.';

CREATE TABLE partner (
    id      text PRIMARY KEY,
    version integer NOT NULL,
    step    text NOT NULL,
    state   jsonb NOT NULL
);
COMMENT ON TABLE partner IS 'Membership associations: what they applied for and what they were awarded.';

CREATE TABLE expert (
    id         text PRIMARY KEY,
    version    integer NOT NULL,
    partner_id text NOT NULL,
    step       text NOT NULL,
    state      jsonb NOT NULL
);
COMMENT ON TABLE expert IS 'Subject-matter experts of partners; a listing may wait until its partner is selected.';

CREATE TABLE conflict (
    id         text PRIMARY KEY,
    version    integer NOT NULL,
    ori        text NOT NULL,
    kind       text NOT NULL,
    expert_id  text,
    partner_id text,
    detail     text,
    waived     boolean NOT NULL,
    CHECK ((expert_id IS NULL) <> (partner_id IS NULL))
);
COMMENT ON TABLE conflict IS 'Conflicts of interest as disclosed. detail is restricted: it leaves this table in no event.';
