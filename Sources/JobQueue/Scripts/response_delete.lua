-- Deletes a response of the Responses API.
-- KEYS  1 response (hash)   2 byte ledger of the owner's responses (hash)   3 record   4 log
-- ARGV  1 job id   2 retention s of an ended job
-- Returns 1 when the response existed.
if own(KEYS[2], 'hash') then remove_from_ledger(KEYS[2], ARGV[1], ledger_bytes(KEYS[2], ARGV[1])) end
local state = redis.pcall('HGET', KEYS[3], 'state')
if type(state) == 'string' and is_terminal(state) then
    redis.call('EXPIRE', KEYS[3], ARGV[2])
    redis.call('EXPIRE', KEYS[4], ARGV[2])
end
return redis.call('DEL', KEYS[1])
