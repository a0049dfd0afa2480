-- What rooms keep at run time: named rows with a version and a number.
CREATE TABLE shelf (
    section    text   COLLATE "C" NOT NULL,
    key        text   COLLATE "C" NOT NULL,
    version    bigint NOT NULL,
    owner      text   COLLATE "C" NOT NULL,
    body       text   NOT NULL,
    number     bigint NOT NULL,
    expires_at bigint,
    PRIMARY KEY (section, key)
);
CREATE INDEX shelf_owner ON shelf (section, owner, key);
CREATE INDEX shelf_expires_at ON shelf (expires_at) WHERE expires_at IS NOT NULL;
CREATE SEQUENCE shelf_version;
