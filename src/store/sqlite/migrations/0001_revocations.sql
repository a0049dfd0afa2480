-- One row: what this store is, and how often an answer may have changed.
CREATE TABLE meta (
    one     INTEGER PRIMARY KEY CHECK (one = 1),
    epoch   INTEGER NOT NULL,
    replica TEXT    NOT NULL
) STRICT;

-- What was taken back. Empty text stands for "not applicable", so that the key can compare it.
CREATE TABLE revocations (
    kind          TEXT    NOT NULL CHECK (kind IN ('token', 'session', 'subject', 'client', 'everything')),
    issuer        TEXT    NOT NULL,
    value         TEXT    NOT NULL,
    mode          TEXT    NOT NULL CHECK (mode IN ('block', 'sign_out')),
    issued_before INTEGER CHECK ((mode = 'sign_out') = (issued_before IS NOT NULL)),
    actor         TEXT    NOT NULL,
    note          TEXT    NOT NULL,
    at            INTEGER NOT NULL,
    epoch         INTEGER NOT NULL,
    PRIMARY KEY (kind, issuer, value, mode)
) STRICT, WITHOUT ROWID;
