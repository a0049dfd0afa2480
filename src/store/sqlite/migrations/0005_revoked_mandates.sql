-- Mandates can be taken back, too. A check cannot be changed in place.
CREATE TABLE revocations_next (
    kind          TEXT    NOT NULL CHECK (kind IN (
        'token', 'session', 'subject', 'client', 'agent', 'owner', 'server', 'mandate', 'everything')),
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
