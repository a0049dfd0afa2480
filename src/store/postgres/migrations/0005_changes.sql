-- Two histories that came to the same epoch are told apart, and a store that was seen to go back says so to everybody.
ALTER TABLE changes ADD COLUMN nonce bigint;
ALTER TABLE meta ADD COLUMN went_back text;
