-- What rooms keep at run time: named rows with a version and a number.
CREATE TABLE shelf (
    section    TEXT    NOT NULL,
    key        TEXT    NOT NULL,
    version    INTEGER NOT NULL,
    owner      TEXT    NOT NULL,
    body       TEXT    NOT NULL,
    number     INTEGER NOT NULL,
    expires_at INTEGER,
    PRIMARY KEY (section, key)
) STRICT, WITHOUT ROWID;
CREATE INDEX shelf_owner ON shelf (section, owner, key);
CREATE INDEX shelf_expires_at ON shelf (expires_at) WHERE expires_at IS NOT NULL;
ALTER TABLE meta ADD COLUMN shelf_version INTEGER NOT NULL DEFAULT 0;
