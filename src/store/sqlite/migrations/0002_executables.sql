-- What each server with a command ran last: the SHA-256 of its executable.
CREATE TABLE executables (
    server TEXT NOT NULL PRIMARY KEY,
    digest TEXT NOT NULL
) STRICT, WITHOUT ROWID;
