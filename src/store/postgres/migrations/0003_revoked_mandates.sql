-- Mandates can be taken back, too.
ALTER TABLE revocations DROP CONSTRAINT revocations_kind_check;
ALTER TABLE revocations ADD CONSTRAINT revocations_kind_check CHECK (kind IN (
    'token', 'session', 'subject', 'client', 'agent', 'owner', 'server', 'mandate', 'everything'));
