-- Stores a response of the Responses API, if the owner's limit of bytes allows it.
-- KEYS  1 response (hash)   2 byte ledger of the owner's responses (hash)
-- ARGV  1 job id   2 expiry s   3 maximum bytes of the ledger (0: no limit), then field, value, …
-- Returns 1 stored, 0 refused.
own(KEYS[1], 'hash')
own(KEYS[2], 'hash')
local size = RESPONSE_BASE
for i = 4, #ARGV do size = size + #ARGV[i] end
local maximum = tonumber(ARGV[3])
if maximum > 0 and total_of(KEYS[2]) + size > maximum then
    -- Responses that have expired are removed from a sample of the ledger, so that the total recovers.
    local sample = redis.call('HRANDFIELD', KEYS[2], 100, 'WITHVALUES')
    for index = 1, #sample, 2 do
        local id, bytes = sample[index], tonumber(sample[index + 1]) or 0
        if id ~= 'total' and redis.call('EXISTS', response_of(KEYS[2], id)) == 0 then remove_from_ledger(KEYS[2], id, bytes) end
    end
    if total_of(KEYS[2]) + size > maximum then return 0 end
end
redis.call('HSET', KEYS[1], unpack(ARGV, 4))
redis.call('EXPIRE', KEYS[1], ARGV[2])
add_to_ledger(KEYS[2], ARGV[1], size - ledger_bytes(KEYS[2], ARGV[1]), size, total_of(KEYS[2]))
if redis.call('TTL', KEYS[2]) < tonumber(ARGV[2]) then redis.call('EXPIRE', KEYS[2], ARGV[2]) end
return 1
