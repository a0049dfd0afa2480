-- API keys can be taken back, too. What kinds there are the code says, which refuses to read any other: a check here
-- would have to be written anew for each, and cannot be changed in place.
CREATE TABLE revocations_next (
    kind          TEXT    NOT NULL,
    issuer        TEXT    NOT NULL,
    value         TEXT    NOT NULL,
    mode          TEXT    NOT NULL CHECK (mode IN ('block', 'sign_out')),
    issued_before INTEGER CHECK ((mode = 'sign_out') = (issued_before IS NOT NULL)),
    actor         TEXT    NOT NULL,
    note          TEXT    NOT NULL,
    at            INTEGER NOT NULL,
    epoch         INTEGER NOT NULL UNIQUE,
    PRIMARY KEY (kind, issuer, value, mode)
) STRICT, WITHOUT ROWID;
INSERT INTO revocations_next SELECT * FROM revocations;
DROP TABLE revocations;
ALTER TABLE revocations_next RENAME TO revocations;
