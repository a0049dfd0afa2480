-- API keys can be taken back, too. What kinds there are the code says, which refuses to read any other.
ALTER TABLE revocations DROP CONSTRAINT revocations_kind_check;
