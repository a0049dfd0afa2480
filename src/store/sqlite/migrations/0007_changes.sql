-- What raised the epoch, so that the record tells each of them: the last revocations, lifts and changes of rows.
CREATE TABLE changes (
    epoch         INTEGER NOT NULL PRIMARY KEY,
    nonce         INTEGER,
    replica       TEXT    NOT NULL,
    lifted        INTEGER NOT NULL,
    kind          TEXT    NOT NULL,
    issuer        TEXT    NOT NULL,
    value         TEXT    NOT NULL,
    mode          TEXT    NOT NULL,
    issued_before INTEGER,
    actor         TEXT    NOT NULL,
    note          TEXT    NOT NULL,
    at            INTEGER NOT NULL
) STRICT;
