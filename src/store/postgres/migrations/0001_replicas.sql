-- One row: how often an answer may have changed, and which files all replicas are to serve.
CREATE TABLE meta (
    one         integer PRIMARY KEY CHECK (one = 1),
    epoch       bigint  NOT NULL,
    revision    text,
    revision_by text,
    revision_at timestamptz
);
INSERT INTO meta (one, epoch) VALUES (1, 0);

-- What was taken back. Empty text stands for "not applicable", so that the key can compare it.
CREATE TABLE revocations (
    kind          text   NOT NULL CHECK (kind IN (
        'token', 'session', 'subject', 'client', 'agent', 'owner', 'server', 'everything')),
    issuer        text   NOT NULL,
    value         text   NOT NULL,
    mode          text   NOT NULL CHECK (mode IN ('block', 'sign_out')),
    issued_before bigint CHECK ((mode = 'sign_out') = (issued_before IS NOT NULL)),
    actor         text   NOT NULL,
    note          text   NOT NULL,
    at            bigint NOT NULL,
    epoch         bigint NOT NULL UNIQUE,
    PRIMARY KEY (kind, issuer, value, mode)
);

-- What became of them, so that each replica can put it on its own record: the last revocations and lifts.
CREATE TABLE changes (
    epoch         bigint  PRIMARY KEY,
    replica       text    NOT NULL,
    lifted        boolean NOT NULL,
    kind          text    NOT NULL,
    issuer        text    NOT NULL,
    value         text    NOT NULL,
    mode          text    NOT NULL,
    issued_before bigint,
    actor         text    NOT NULL,
    note          text    NOT NULL,
    at            bigint  NOT NULL
);

-- The replicas: where others reach them, what they serve, and when they were heard of.
CREATE TABLE members (
    replica   text        PRIMARY KEY,
    advertise text,
    version   text        NOT NULL,
    revision  text        NOT NULL,
    gone      boolean     NOT NULL,
    seen_at   timestamptz NOT NULL
);

-- What each server with a command ran last at each replica: the SHA-256 of its executable.
CREATE TABLE executables (
    replica text NOT NULL,
    server  text NOT NULL,
    digest  text NOT NULL,
    PRIMARY KEY (replica, server)
);
